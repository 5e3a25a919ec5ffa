"""What a command of the command line is: a typed dataclass whose fields are its flags."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """Abstract: flags, and what to do with them."""

    examples: ClassVar[tuple[str, ...]]
    """Command lines that stand at the end of the help."""

    debug: bool = False
    """Show the traceback of an error; so does the environment variable FLOWPOLICIES_DEBUG=1."""

    @abstractmethod
    def run(self, words: Sequence[str]) -> int | None:
        """Does it, and returns the exit code, if it is not 0. `words` is the command line, without the program."""


class Group(NamedTuple):
    """Commands behind a common word."""

    description: str
    commands: Mapping[str, type[Command] | Group]
