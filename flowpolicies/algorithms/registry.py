"""Algorithms by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowpolicies.algorithms.base import OfflineAlgorithm

ALGORITHMS: dict[str, type[OfflineAlgorithm]] = {}
"""Name -> class, entered when a class is declared."""


def get_algorithm(name: str) -> type[OfflineAlgorithm]:
    """The class of a name, from this package or from the entry points `flowpolicies.algorithms`.

    Raises:
        ValueError: for an unknown name, with the nearest one.
    """
    key = name.lower()
    if key not in ALGORITHMS:
        for entry in entry_points(group="flowpolicies.algorithms", name=key):
            entry.load()
    if key not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {name!r} (known: {', '.join(ALGORITHMS)}).{nearest(key, ALGORITHMS)}")
    return ALGORITHMS[key]


def nearest(name: str, known: Iterable[str]) -> str:
    """What may have been meant, as the end of an error message."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {near[0]!r}?" if near else ""
