"""`flowpolicies list`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from importlib.metadata import entry_points
from types import ModuleType
from typing import ClassVar, Literal, final

import tyro
from torch import nn

from flowpolicies import networks, samplers
from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.cli.command import Command
from flowpolicies.data import list_sources

Topic = Literal["all", "algorithms", "datasets", "environments", "generators", "samplers", "networks"]


@final
@dataclass(frozen=True, kw_only=True)
class List(Command):
    """List what there is: algorithms, sources of data and environments, samplers, networks."""

    examples: ClassVar[tuple[str, ...]] = ("flowpolicies list", "flowpolicies list algorithms")

    what: tyro.conf.Positional[Topic] = "all"
    """One topic, or all."""

    def run(self, words: Sequence[str]) -> None:
        """Prints one table per topic."""
        for topic, make in TOPICS.items():
            if self.what in ("all", topic):
                print("\n".join([f"{topic}:", *_align(make())]))


def _algorithms() -> dict[str, str]:
    """Those of other packages are not imported for this, so only their package is known."""
    points = entry_points(group="flowpolicies.algorithms")
    others = {point.name: f"from {point.dist.name if point.dist else 'unknown'}" for point in points}
    return others | {name: _first_line(cls) for name, cls in ALGORITHMS.items()}


def _classes(module: ModuleType, keep: Callable[[type], bool]) -> dict[str, str]:
    found = [member for member in vars(module).values() if isinstance(member, type) and keep(member)]
    return {cls.__name__: _first_line(cls) for cls in found}


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _align(table: dict[str, str]) -> list[str]:
    width = max(map(len, table), default=0)
    return [f"  {name:<{width}}  {text}" for name, text in table.items()] or ["  none"]


TOPICS: dict[str, Callable[[], dict[str, str]]] = {
    "algorithms": _algorithms,
    "datasets": lambda: list_sources("datasets"),
    "environments": lambda: list_sources("environments"),
    "generators": lambda: list_sources("generators"),
    "samplers": lambda: _classes(samplers, lambda cls: is_dataclass(cls) and "__call__" in vars(cls)),
    "networks": lambda: _classes(networks, lambda cls: issubclass(cls, nn.Module)),
}
