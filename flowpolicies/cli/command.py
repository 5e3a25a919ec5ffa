"""Base class of the commands: a dataclass whose fields are the flags of the command."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """Abstract base of all commands."""

    examples: ClassVar[tuple[str, ...]]
    """Command lines that are printed at the end of the help."""

    debug: bool = False
    """Print the traceback of an error. The environment variable FLOWPOLICIES_DEBUG=1 does the same."""

    @abstractmethod
    def run(self, words: Sequence[str]) -> int | None:
        """Runs the command.

        Args:
            words: the command line without the program's name.

        Returns:
            The exit code; None stands for 0.
        """


class Later(NamedTuple):
    """A command whose class is made when its name is used, because there are many of its kind."""

    description: str | None
    """Docstring of the command."""
    make: Callable[[], type[Command]]
    """Function that makes the class."""


class Group(NamedTuple):
    """Commands that share their first word, such as `flowpolicies data ...`."""

    description: str
    """One sentence for the help."""
    commands: Mapping[str, type[Command] | Later | Group]
    """Next word of the command line -> command or group."""
    default: type[Command] | None = None
    """Command of all words that are none of these; None: there is no other one."""
    shown: str | None = None
    """Name of the command that stands for the group in examples of a larger group; None: the first one."""
