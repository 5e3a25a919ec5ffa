"""The command line: its commands, their parsing with tyro, and the printing of errors.

Help, and the errors that need no data, are printed before torch is imported, which takes seconds. So the modules of
this folder import packages whose names are imported when they are used (`flowpolicies.lazy`), and not the names.
"""

from __future__ import annotations

import os
import sys
import textwrap
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import make_dataclass
from functools import partial
from itertools import islice
from typing import Annotated, Any, Union, cast

import tyro

from flowpolicies.cli.bench import BENCH
from flowpolicies.cli.check import Check
from flowpolicies.cli.command import Command, Group, Later
from flowpolicies.cli.config import with_algorithm
from flowpolicies.cli.data import Collect, Convert, Generate, Show
from flowpolicies.cli.demo import Demo
from flowpolicies.cli.evaluation.compare import Compare, Plot
from flowpolicies.cli.evaluation.diagnose import Diagnose
from flowpolicies.cli.evaluation.evaluate import Evaluate
from flowpolicies.cli.evaluation.report import ReportRuns
from flowpolicies.cli.evaluation.watch import Watch
from flowpolicies.cli.export import Export, Push
from flowpolicies.cli.importing import Import
from flowpolicies.cli.listing import List
from flowpolicies.cli.local import LocalResults, ReproduceLocal
from flowpolicies.cli.reproduce import ReproduceResults, ReproduceTable
from flowpolicies.cli.toy.toy import Toy
from flowpolicies.cli.train import parse_train, train_command, value_of
from flowpolicies.locks import FolderInUseError
from flowpolicies.shell import catalog
from flowpolicies.signals import Terminated, raising_terminated
from flowpolicies.version import __version__

CommandOrGroup = type[Command] | Later | Group

DESCRIPTION = "Flow policies for offline and offline-to-online reinforcement learning."
MOST_EXAMPLES = 3
"""Number of examples in the help of a group of commands at most."""

HEADINGS: Mapping[str, tuple[str, ...]] = {
    "Train": ("train", "watch", "demo", "toy"),
    "Evaluate and compare": ("evaluate", "compare", "plot", "report", "diagnose", "rollout"),
    "Data": ("data",),
    "Share and import policies": ("export", "push", "import"),
    "Published results and speed": ("reproduce", "bench"),
    "What there is": ("list",),
}
"""Task -> commands for it, as the help of the whole program shows them."""

DATA: dict[str, CommandOrGroup] = {
    "generate": Generate,
    "collect": Collect,
    "convert": Convert,
    "show": Show,
    "check": Check,
}

REPRODUCE: dict[str, CommandOrGroup] = {
    "table": Group("Run a published table again, or the local benchmark.", {"local": ReproduceLocal}, ReproduceTable),
    "results": Group("Results of the runs of a table so far.", {"local": LocalResults}, ReproduceResults),
}


def commands() -> dict[str, CommandOrGroup]:
    """All commands by name. To add a command, add a line here."""
    return {
        "train": Group(
            "Train an algorithm on a dataset, online, or on a dataset and then online.",
            {name: Later(doc, partial(train_command, name)) for name, doc in algorithms().items()},
            shown="qflow",
        ),
        "watch": Watch,
        "evaluate": Evaluate,
        "compare": Compare,
        "plot": Plot,
        "report": ReportRuns,
        "diagnose": Diagnose,
        "rollout": Collect,  # Also `data collect`; users who have a policy look for it here.
        "data": Group("Generate, collect, convert, show and check datasets.", DATA),
        "export": Export,
        "push": Push,
        "import": Import,
        "list": List,
        "reproduce": Group("Run published tables of results again, and the local benchmark.", REPRODUCE),
        "demo": Demo,
        "toy": Toy,
        "bench": Group("Measure the speed of updates, acting, online training and data.", BENCH),
    }


def algorithms() -> dict[str, str | None]:
    """Names of the algorithms of this package, and of those of others that are imported, with their docstrings."""
    others = {name: cls.__doc__ for name, cls in catalog.REGISTRY.declared.items()}
    return {name: entry.doc for name, entry in catalog.catalog().items()} | others


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        args: words of the command line without the program's name; None: those of this process.

    Returns:
        The exit code: 0 for success, 1 if `data check` or `diagnose` found faults, 2 for wrong input or a bug, 130
        after Ctrl-C, 143 after SIGTERM, and 141 if the reader of the output has closed it.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        with plain_warnings(), raising_terminated():
            return _run(words)
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # The reader of our output, such as `head`, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, TypeError, OSError, ImportError, FolderInUseError) as error:
        if "--debug" in words or os.environ.get("FLOWPOLICIES_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        print(f"flowpolicies: {error or type(error).__name__}", file=sys.stderr)
        return 2
    except Exception:  # Python's own exit code 1 would mean that a check found faults.
        traceback.print_exc()
        print("flowpolicies: this is a bug (or memory ran out); please report the lines above.", file=sys.stderr)
        return 2


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Prints warnings for users as "warning: ..." without the line of code that raised them."""
    usual = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> str:
        return f"warning: {message}\n" if category is UserWarning else usual(message, category, *args, **kwargs)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _run(words: Sequence[str]) -> int:
    if list(words) == ["--version"]:
        print(f"flowpolicies {__version__}")
        return 0
    if list(words) in (["--help"], ["-h"]):
        print(overview())
        print("\nexamples:\n" + "\n".join(f"  {line}" for line in _examples([])))
        return 0
    try:
        command = _parse(words)
    except SystemExit as stop:  # tyro has printed the help or an error.
        if stop.code == 0:
            print("\nexamples:\n" + "\n".join(f"  {line}" for line in _examples(words)))
        return int(stop.code or 0)
    return command.run(words) or 0


def overview() -> str:
    """The help of the whole program: its commands, grouped by task."""
    known = commands()
    width = max(map(len, known)) + 2
    others = tuple(name for name in known if not any(name in names for names in HEADINGS.values()))
    lines = ["usage: flowpolicies COMMAND ...", "", DESCRIPTION]
    for heading, names in {**HEADINGS, "Other commands": others}.items():
        shown = [name for name in names if name in known]
        lines += ["", f"{heading}:"] if shown else []
        for name in shown:
            text = f"  {name.ljust(width)}{_first_line(known[name])}"
            lines.append(textwrap.fill(text, 100, subsequent_indent=" " * (width + 2)))
    return "\n".join([*lines, "", "flowpolicies COMMAND --help explains a command, with examples."])


def _first_line(entry: CommandOrGroup) -> str:
    doc = entry.__doc__ if isinstance(entry, type) else entry.description
    return (doc or "").strip().partition("\n")[0]


def _parse(words: Sequence[str]) -> Command:
    """Parses a command line; tyro prints help and errors, and exits.

    tyro gets only the command or the group that the words name, because parsing all commands takes seconds.
    """
    words = with_algorithm(words, value_of("config", words))
    if len(words) > 1 and words[0] == "train" and not words[1].startswith("-"):
        catalog.name_of(words[1])  # Imports algorithms of other packages, and suggests a name for an unknown one.
    path, entry = _find(words)
    if isinstance(entry, Later):
        return parse_train(words)
    parsed: Command = tyro.cli(
        _union(entry.commands) if isinstance(entry, Group) else cast(Any, entry),
        args=_join(words[len(path) :], "--extra"),
        prog=" ".join(("flowpolicies", *path)),
        description=entry.description if isinstance(entry, Group) else None,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return parsed


def _join(words: Sequence[str], flag: str) -> list[str]:
    """Turns `--flag "--x 1"` into `--flag="--x 1"`, because tyro does not accept values that begin with dashes."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == flag:
            joined[-1] = f"{flag}={word}"
        else:
            joined.append(word)
    return joined


def _find(words: Sequence[str]) -> tuple[tuple[str, ...], CommandOrGroup]:
    """The words at the start of a command line that name a command or a group, and that command or group."""
    path: tuple[str, ...] = ()
    entry: CommandOrGroup = Group(DESCRIPTION, commands())
    for word in words:
        if not isinstance(entry, Group) or word not in entry.commands:
            break
        path, entry = (*path, word), entry.commands[word]
    return (path, entry) if not isinstance(entry, Group) or entry.default is None else (path, entry.default)


def _union(table: Mapping[str, CommandOrGroup]) -> Any:
    """Union type of the commands of a group, from which tyro makes subcommands.

    The words name none of them, or they would have been found. So tyro prints their names and descriptions, or an
    error, and the commands need no flags: tyro would read all of them, which takes seconds.
    """
    return Union[tuple(_subcommand(name, entry) for name, entry in table.items())]  # noqa: UP007


def _subcommand(name: str, entry: CommandOrGroup) -> Any:
    doc = entry.__doc__ if isinstance(entry, type) else entry.description
    return Annotated[make_dataclass(name.capitalize(), (), namespace={"__doc__": doc}), tyro.conf.subcommand(name)]


def _examples(words: Sequence[str]) -> list[str]:
    """Examples at the end of the help of a command, or one for each of the first commands of a group."""
    _, entry = _find(words)
    if isinstance(entry, Group):
        first = (next(_leaves(one)).examples[0] for one in _ordered(entry))
        return list(dict.fromkeys(islice(first, MOST_EXAMPLES)))
    return list(next(_leaves(entry)).examples)


def _leaves(entry: CommandOrGroup) -> Iterator[type[Command]]:
    """The command itself, or all commands of a group."""
    if isinstance(entry, Group):
        for inner in _ordered(entry):
            yield from _leaves(inner)
    else:
        yield entry.make() if isinstance(entry, Later) else entry


def _ordered(group: Group) -> list[CommandOrGroup]:
    """The commands of a group in the order of its examples."""
    default = [] if group.default is None else [group.default]
    others = [one for name, one in group.commands.items() if name != group.shown]
    return [*([] if group.shown is None else [group.commands[group.shown]]), *default, *others]
