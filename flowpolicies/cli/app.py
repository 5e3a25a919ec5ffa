"""The command line: a table of commands, parsing by tyro, and errors as one message."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Union, cast

import tyro

from flowpolicies.algorithms import ALGORITHMS, get_algorithm
from flowpolicies.cli.command import Command, Group
from flowpolicies.cli.data import Generate, Show
from flowpolicies.cli.demo import Demo
from flowpolicies.cli.evaluate import Evaluate
from flowpolicies.cli.listing import List
from flowpolicies.cli.rollout import Rollout
from flowpolicies.cli.train import train_command

Table = Mapping[str, type[Command] | Group]

DESCRIPTION = "Flow policies for offline and offline-to-online reinforcement learning."


def commands() -> Table:
    """The commands. A line here is all that a new one needs."""
    return {
        "train": Group("Train an algorithm.", {name: train_command(cls) for name, cls in ALGORITHMS.items()}),
        "evaluate": Evaluate,
        "rollout": Rollout,
        "data": Group("Make and look at datasets.", {"generate": Generate, "show": Show}),
        "list": List,
        "demo": Demo,
    }


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command line, without the program's name; None: that of the process.

    Returns:
        The exit code: 0, 2 for wrong input, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        _parse(words).run(words)
    except SystemExit as stop:  # tyro has printed help, or what is wrong.
        code = stop.code if isinstance(stop.code, int) else 0
        if code == 0:
            print("\nexamples:\n" + "\n".join(f"  {line}" for line in _examples(words)))
        return code
    except KeyboardInterrupt:
        return 130
    except (ValueError, TypeError, OSError, ImportError) as error:
        if "--debug" in words or os.environ.get("FLOWPOLICIES_DEBUG", "0") not in ("", "0"):
            raise
        print(f"flowpolicies: {error or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


def _parse(words: Sequence[str]) -> Command:
    if len(words) > 1 and words[0] == "train" and not words[1].startswith("-"):
        get_algorithm(words[1])  # Finds those of other packages, and knows what was meant.
    command = tyro.cli(
        _union(commands()),
        args=words,
        prog="flowpolicies",
        description=DESCRIPTION,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return cast(Command, command)


def _union(table: Table) -> Any:
    """The type that tyro parses."""
    return Union[tuple(_subcommand(name, entry) for name, entry in table.items())]  # noqa: UP007


def _subcommand(name: str, entry: type[Command] | Group) -> Any:
    if isinstance(entry, Group):
        return Annotated[_union(entry.commands), tyro.conf.subcommand(name, description=entry.description)]
    return Annotated[entry, tyro.conf.subcommand(name)]


def _examples(words: Sequence[str]) -> list[str]:
    """Of the command that help was asked about; of a group, the first ones of its commands."""
    entry: Table | type[Command] = commands()
    for word in words:
        if isinstance(entry, Mapping) and word in entry:
            found = entry[word]
            entry = found.commands if isinstance(found, Group) else found
    if isinstance(entry, Mapping):
        return list(islice((leaf.examples[0] for leaf in _leaves(entry)), 3))
    return list(entry.examples)


def _leaves(table: Table) -> Iterator[type[Command]]:
    for entry in table.values():
        if isinstance(entry, Group):
            yield from entry.commands.values()
        else:
            yield entry
