"""Base class of the commands: a dataclass whose fields are the flags of the command."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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


class Group(NamedTuple):
    """Commands that share their first word, such as `flowpolicies data ...`."""

    description: str
    """One sentence for the help."""
    commands: Mapping[str, type[Command] | Group]
    """Next word of the command line -> command or group."""
