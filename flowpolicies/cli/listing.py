"""`flowpolicies list`: print what the package and its plugins provide."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, final

import tyro
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from flowpolicies import algorithms, data
from flowpolicies.cli.command import Command
from flowpolicies.plugins import Registry
from flowpolicies.reproduction.local.benchmark import load_benchmark
from flowpolicies.reproduction.presets import list_presets
from flowpolicies.reproduction.published import list_tables
from flowpolicies.shell.catalog import FAMILIES, REGISTRY

if TYPE_CHECKING:
    from flowpolicies.algorithms import OfflineAlgorithm
    from flowpolicies.samplers import Sampler

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
"""Columns of what every algorithm supports, because the class that they share does; contract tests check each."""
LEAST_WIDTH = {"paper": len("2502.02538")}
"""Smallest widths of the columns that may be wrapped, in characters."""


@final
@dataclass(frozen=True, kw_only=True)
class List(Command):
    """List algorithms, data sources, environments, samplers, networks, presets and published tables."""

    examples: ClassVar[tuple[str, ...]] = ("flowpolicies list", "flowpolicies list algorithms")

    what: tyro.conf.Positional[Topic] = "all"
    """Topic to list, or all of them."""
    markdown: bool = False
    """Print the algorithms of this package as Markdown, the page docs/algorithms/index.md."""

    def run(self, words: Sequence[str]) -> None:
        """Prints one table for each topic."""
        if self.markdown:
            if self.what != "algorithms":
                raise ValueError("--markdown is for the list of algorithms: flowpolicies list algorithms --markdown")
            print(markdown_page(), end="")
            return
        for topic, show in TOPICS.items():
            if self.what in ("all", topic):
                print(f"{topic}:")
                show()


class Facts(NamedTuple):
    """The cells of an algorithm in the table of algorithms."""

    name: str
    """Name on the command line."""
    line: str
    """First line of the docstring of its class."""
    link: str | None
    """Link to the paper; None if the docstrings have no link."""
    class_name: str
    """Name of its class."""
    sampler: str
    """Sampler of the actions with the default hyperparameters, such as BestOfN(Integrate)."""
    parity: tuple[str, ...]
    """Names of the recordings of the authors' code that tests replay through the algorithm."""

    @property
    def paper(self) -> str:
        """The arXiv number of the paper, or the link if the paper is not on arXiv."""
        if self.link is None:
            return "-"
        arxiv = re.search(r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})", self.link)
        address = self.link.removeprefix("https://")
        short = address if len(address) <= 24 else address.partition("/")[0].rpartition(".")[0]
        return arxiv[1] if arxiv else short

    @classmethod
    def of(cls, algorithm: type[OfflineAlgorithm]) -> Facts:
        """The facts of an algorithm; its paper is the first link in the docstring of its class, or of its module."""
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
    """Names of the class of a sampler and of the samplers inside it, such as "BestOfN(Integrate)"."""
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(sampler) if is_dataclass(sampler) else ()
    inner = [composition(part) for field in fields if callable(part := getattr(sampler, field.name))]
    return type(sampler).__name__ + (f"({', '.join(inner)})" if inner else "")


def _show_algorithms() -> None:
    """Prints the table of algorithms.

    It is as wide as it needs to be; in a terminal, long columns are wrapped to the width of the terminal if possible.
    """
    notes = _import_others()
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("name", "paper", "class", "sampler", *SUPPORT, "parity"):
        table.add_column(column, no_wrap=column not in LEAST_WIDTH, min_width=LEAST_WIDTH.get(column))
    known = algorithms.ALGORITHMS
    for name in sorted(known, key=lambda name: (not REGISTRY.is_built_in(name), name)):
        facts = Facts.of(known[name])
        cells = (facts.name, facts.paper, facts.class_name, facts.sampler, *("yes" for _ in SUPPORT))
        table.add_row(*cells, str(len(facts.parity) or "-"))  # Their names are on the page of the documentation.
    console, block = Console(highlight=False, markup=False), Padding(table, (0, 0, 0, 2))
    least, most = console.measure(block, options=console.options.update(width=1000))
    console.width = max(least, console.width) if console.is_terminal else most
    console.print(block)
    print("".join(f"  {note}\n" for note in notes), end="")


def _import_others() -> list[str]:
    """Imports the algorithms of other packages, and returns a line about each."""
    notes = []
    for name in REGISTRY.third_party():
        package = REGISTRY.names()[name]
        try:
            algorithms.get_algorithm(name)
            notes.append(f"{name} is from the package {package}.")
        except (ImportError, ValueError) as error:
            notes.append(str(error))
    return notes


PAGE = """\
<!-- Generated by `make generate`; do not edit. -->

# All algorithms

Which one to take depends on the data, on the time that an action may take, and on whether training continues online.
`flowpolicies list algorithms` prints this list with the algorithms of other packages. Each of them learns from a
dataset without an environment, online from scratch, and online after a dataset; observations may be vectors, dicts or
images, and actions single or in chunks. The contract tests check this for each.

{families}
- **Acts by**: the sampler of the actions with the default hyperparameters, with the inner sampler in brackets; see
  [samplers](../samplers.md).
- **Recordings** of the authors' code in `tests/golden`, whose losses, gradients, actions and updated weights the tests
  replay. For algorithms without a recording, tests compare with independent computations. The page of an algorithm
  names its recordings.
"""

FAMILY = """\
## {title}

| class, name | what it does | acts by |
|---|---|---|
{rows}
"""


def markdown_page() -> str:
    """Text of docs/algorithms/index.md."""
    known = [algorithms.ALGORITHMS[name] for name in sorted(filter(REGISTRY.is_built_in, algorithms.ALGORITHMS))]
    families = []
    for family, title in FAMILIES.items():
        rows = [_markdown_row(Facts.of(algorithm)) for algorithm in known if algorithm.family == family]
        families += [FAMILY.format(title=title, rows="\n".join(rows))] if rows else []
    return PAGE.format(families="\n".join(families))


def _markdown_row(facts: Facts) -> str:
    paper = f" [{facts.paper}]({facts.link})" if facts.link else ""
    number = len(facts.parity)
    recordings = f", {number} recording{'s' if number > 1 else ''}" if number else ""
    name = f"[{facts.class_name}]({facts.name}.md) `{facts.name}`"
    return f"| {name} | {facts.line}{paper}{recordings} | `{facts.sampler}` |"


def _show_samplers() -> None:
    from flowpolicies.samplers import SAMPLERS

    _show(_described(SAMPLERS, lambda cls: "__call__" in vars(cls)))


def _show_networks() -> None:
    from flowpolicies.networks import NETWORKS

    _show(_described(NETWORKS))


def _show_encoders() -> None:
    from flowpolicies.networks import ENCODERS

    _show(ENCODERS.names())


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
    "datasets": lambda: _show(data.list_sources("datasets")),
    "environments": lambda: _show(data.list_sources("environments")),
    "generators": lambda: _show(data.list_sources("generators")),
    "writers": lambda: _show(data.list_sources("writers")),
    "samplers": _show_samplers,
    "networks": _show_networks,
    "encoders": _show_encoders,
    "presets": lambda: _show({name: ", ".join(algorithms) for name, algorithms in list_presets().items()}),
    "tables": lambda: _show(list_tables() | {"local": load_benchmark().title}),
}
