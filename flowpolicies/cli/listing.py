"""`flowpolicies list`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, ClassVar, Literal, NamedTuple, final

import tyro
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from flowpolicies.algorithms import ALGORITHMS, OfflineAlgorithm, get_algorithm
from flowpolicies.cli.command import Command
from flowpolicies.data import list_sources
from flowpolicies.networks import ENCODERS, NETWORKS
from flowpolicies.plugins import Registry
from flowpolicies.reproduction.presets import list_presets
from flowpolicies.reproduction.published import list_tables
from flowpolicies.samplers import SAMPLERS, Sampler
from flowpolicies.shell.registry import REGISTRY

Topic = Literal[
    "all",
    "algorithms",
    "datasets",
    "environments",
    "generators",
    "writers",
    "samplers",
    "networks",
    "encoders",
    "presets",
    "tables",
]

SUPPORT = ("offline", "online", "pixels")
"""What the shell gives to every algorithm; the contract tests check it of each of ours."""
LEAST_WIDTH = {"paper": len("2502.02538"), "parity": len("cgql_linex_a,")}
"""Of the columns that may be wrapped."""


@final
@dataclass(frozen=True, kw_only=True)
class List(Command):
    """List what there is: algorithms, sources of data and environments, samplers, networks."""

    examples: ClassVar[tuple[str, ...]] = ("flowpolicies list", "flowpolicies list algorithms")

    what: tyro.conf.Positional[Topic] = "all"
    """One topic, or all."""
    markdown: bool = False
    """Print the algorithms of this package as the page docs/algorithms/index.md."""

    def run(self, words: Sequence[str]) -> None:
        """Prints one table per topic."""
        if self.markdown:
            if self.what != "algorithms":
                raise ValueError("--markdown makes a page of the algorithms: flowpolicies list algorithms --markdown")
            print(markdown_page(), end="")
            return
        for topic, show in TOPICS.items():
            if self.what in ("all", topic):
                print(f"{topic}:")
                show()


class Facts(NamedTuple):
    """What the table says of an algorithm."""

    name: str
    line: str
    """What it is, in a line."""
    link: str | None
    """The paper."""
    class_name: str
    sampler: str
    """How it acts with the default hyperparameters, such as BestOfN(Integrate)."""
    parity: tuple[str, ...]
    """Recordings of the authors' code that are replayed through it."""

    @property
    def paper(self) -> str:
        """The link as it is shown: arXiv's number of the paper, or the address."""
        if self.link is None:
            return "-"
        arxiv = re.search(r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})", self.link)
        return arxiv[1] if arxiv else self.link.removeprefix("https://")

    @classmethod
    def of(cls, algorithm: type[OfflineAlgorithm]) -> Facts:
        """Of an algorithm: the paper is the first link in its class's docstring, else in its module's."""
        module = inspect.getmodule(algorithm)
        link = re.search(r"https://[^\s,;)>\]]+", f"{algorithm.__doc__}\n{module.__doc__ if module else ''}")
        return cls(
            name=algorithm.name,
            line=_first_line(algorithm),
            link=link[0].rstrip(".") if link else None,
            class_name=algorithm.__name__,
            sampler=composition(algorithm.Config().sampler()),
            parity=algorithm.parity,
        )


def composition(sampler: Sampler) -> str:
    """The names of the classes that a sampler is made of."""
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(sampler) if is_dataclass(sampler) else ()
    inner = [composition(part) for field in fields if callable(part := getattr(sampler, field.name))]
    return type(sampler).__name__ + (f"({', '.join(inner)})" if inner else "")


def _show_algorithms() -> None:
    """As wide as it needs to be; in a terminal as wide as that is, if the long columns can be wrapped so far."""
    notes = _import_others()
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("name", "paper", "class", "sampler", *SUPPORT, "parity"):
        table.add_column(column, no_wrap=column not in LEAST_WIDTH, min_width=LEAST_WIDTH.get(column))
    for name in sorted(ALGORITHMS, key=lambda name: (not REGISTRY.is_built_in(name), name)):
        facts = Facts.of(ALGORITHMS[name])
        cells = (facts.name, facts.paper, facts.class_name, facts.sampler, *("yes" for _ in SUPPORT))
        table.add_row(*cells, ", ".join(facts.parity) or "-")
    console, block = Console(highlight=False, markup=False), Padding(table, (0, 0, 0, 2))
    least, most = console.measure(block, options=console.options.update(width=1000))
    console.width = max(least, console.width) if console.is_terminal else most
    console.print(block)
    print("".join(f"  {note}\n" for note in notes), end="")


def _import_others() -> list[str]:
    """Imports the algorithms of other packages; a line on each."""
    notes = []
    for name in REGISTRY.third_party():
        package = REGISTRY.names()[name]
        try:
            get_algorithm(name)
            notes.append(f"{name} is from the package {package}.")
        except (ImportError, ValueError) as error:
            notes.append(str(error))
    return notes


PAGE = """\
# Algorithms

| name | what it does | paper | class | sampler | offline | online | pixels | parity |
|---|---|---|---|---|---|---|---|---|
{rows}

`make docs-index` writes this page. `flowpolicies list algorithms` prints it, with the algorithms of other packages.

- **sampler**: how it acts at the default hyperparameters; what stands in brackets is the sampler inside.
- **offline, online, pixels**: learns from a dataset without an environment; learns in one, from scratch and after a
  dataset; takes images, through an encoder in each network that sees observations. The contract tests check all three.
- **parity**: recordings of the authors' code whose losses, gradients, actions and weights after an update the tests
  replay through it (`tests/golden`). Where there is none, the tests hold numbers that were worked out by other means.
"""


def markdown_page() -> str:
    """docs/algorithms/index.md."""
    rows = [_markdown_row(Facts.of(ALGORITHMS[name])) for name in sorted(filter(REGISTRY.is_built_in, ALGORITHMS))]
    return PAGE.format(rows="\n".join(rows))


def _markdown_row(facts: Facts) -> str:
    paper = f"[{facts.paper}]({facts.link})" if facts.link else "-"
    parity = ", ".join(f"`{name}`" for name in facts.parity) or "-"
    cells = [f"[{facts.name}]({facts.name}.md)", facts.line, paper, f"`{facts.class_name}`", f"`{facts.sampler}`"]
    return f"| {' | '.join([*cells, *('yes' for _ in SUPPORT), parity])} |"


def _described(registry: Registry[Any], keep: Callable[[type], bool] = lambda _: True) -> dict[str, str]:
    """Names with the first line of the class, or with the package of a class that is not imported for this."""
    found = {name: _first_line(cls) for name, cls in registry.declared.items() if keep(cls)}
    others = {name: f"from the package {package}" for name, package in registry.names().items()}
    return found | {name: text for name, text in others.items() if name not in registry.declared}


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _show(table: dict[str, str]) -> None:
    width = max(map(len, table), default=0)
    lines: Iterable[str] = [f"  {name:<{width}}  {text}" for name, text in table.items()] or ["  none"]
    print("\n".join(lines))


TOPICS: dict[str, Callable[[], None]] = {
    "algorithms": _show_algorithms,
    "datasets": lambda: _show(list_sources("datasets")),
    "environments": lambda: _show(list_sources("environments")),
    "generators": lambda: _show(list_sources("generators")),
    "writers": lambda: _show(list_sources("writers")),
    "samplers": lambda: _show(_described(SAMPLERS, lambda cls: "__call__" in vars(cls))),
    "networks": lambda: _show(_described(NETWORKS)),
    "encoders": lambda: _show(ENCODERS.names()),
    "presets": lambda: _show({name: ", ".join(algorithms) for name, algorithms in list_presets().items()}),
    "tables": lambda: _show(list_tables()),
}
