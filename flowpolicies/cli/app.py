"""The command line: a table of commands, parsing by tyro, and errors as one message."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Annotated, Any, Union, cast

import tyro

import flowpolicies
from flowpolicies.algorithms import ALGORITHMS, get_algorithm
from flowpolicies.cli.check import Check
from flowpolicies.cli.command import Command, Group
from flowpolicies.cli.data import Collect, Convert, Generate, Show
from flowpolicies.cli.demo import Demo
from flowpolicies.cli.evaluate import Evaluate
from flowpolicies.cli.listing import List
from flowpolicies.cli.reproduce import ReproduceResults, ReproduceTable
from flowpolicies.cli.train import Train, parse_train, train_command

Entry = type[Command] | Group

DESCRIPTION = "Flow policies for offline and offline-to-online reinforcement learning."


DATA: dict[str, Entry] = {"generate": Generate, "collect": Collect, "convert": Convert, "show": Show, "check": Check}


def commands() -> dict[str, Entry]:
    """The commands. A line here is all that a new one needs."""
    return {
        "train": Group("Train an algorithm.", {name: train_command(cls) for name, cls in ALGORITHMS.items()}),
        "evaluate": Evaluate,
        "rollout": Collect,  # `data collect`, where those look for it who have a policy to watch.
        "data": Group("Make and look at datasets.", DATA),
        "list": List,
        "reproduce": Group("Run what papers published.", {"table": ReproduceTable, "results": ReproduceResults}),
        "demo": Demo,
    }


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command line, without the program's name; None: that of the process.

    Returns:
        The exit code: 0, 1 for what a check found, 2 for wrong input or a bug, 130 after Ctrl-C, 141 if nobody reads
        the output.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        with plain_warnings():
            return _run(words)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # The reader of our output, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, TypeError, OSError, ImportError) as error:
        if "--debug" in words or os.environ.get("FLOWPOLICIES_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        print(f"flowpolicies: {error or type(error).__name__}", file=sys.stderr)
        return 2
    except Exception:  # Python's own exit code, 1, is that of a check that found something.
        traceback.print_exc()
        print("flowpolicies: this is a bug (or memory ran out): please report the lines above.", file=sys.stderr)
        return 2


@contextmanager
def plain_warnings() -> Iterator[None]:
    """What is said to the user is a line of its own, without the line of code that says it."""
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
        print(f"flowpolicies {flowpolicies.__version__}")
        return 0
    try:
        command = _parse(words)
    except SystemExit as stop:  # tyro has printed help, or what is wrong.
        if stop.code == 0:
            print("\nexamples:\n" + "\n".join(f"  {line}" for line in _examples(words)))
        return int(stop.code or 0)
    return command.run(words) or 0


def _parse(words: Sequence[str]) -> Command:
    """The command, or tyro's help or complaint; tyro sees only the part of the table that the words lead to."""
    if len(words) > 1 and words[0] == "train" and not words[1].startswith("-"):
        get_algorithm(words[1])  # Finds those of other packages, and knows what was meant.
    path, entry = _find(words)
    if not isinstance(entry, Group) and issubclass(entry, Train):
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
    """`--flag "--x 1"` as `--flag="--x 1"`: what begins with dashes is else no value."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == flag:
            joined[-1] = f"{flag}={word}"
        else:
            joined.append(word)
    return joined


def _find(words: Sequence[str]) -> tuple[tuple[str, ...], Entry]:
    """The words that name a command or a group, and what they name."""
    path: tuple[str, ...] = ()
    entry: Entry = Group(DESCRIPTION, commands())
    for word in words:
        if not isinstance(entry, Group) or word not in entry.commands:
            break
        path, entry = (*path, word), entry.commands[word]
    return path, entry


def _union(table: Mapping[str, Entry]) -> Any:
    """The type that tyro parses."""
    return Union[tuple(_subcommand(name, entry) for name, entry in table.items())]  # noqa: UP007


def _subcommand(name: str, entry: Entry) -> Any:
    if isinstance(entry, Group):
        return Annotated[_union(entry.commands), tyro.conf.subcommand(name, description=entry.description)]
    return Annotated[entry, tyro.conf.subcommand(name)]


def _examples(words: Sequence[str]) -> list[str]:
    """Of the command that help was asked about; of a group, the first ones of its commands."""
    _, entry = _find(words)
    if isinstance(entry, Group):
        return list(islice((leaf.examples[0] for leaf in _leaves(entry)), 3))
    return list(entry.examples)


def _leaves(group: Group) -> Iterator[type[Command]]:
    for entry in group.commands.values():
        if isinstance(entry, Group):
            yield from _leaves(entry)
        else:
            yield entry
