"""Which algorithms stand for all of them in `make test`, where a promise is kept by code that they share.

The others are tested by `make more`, which CI runs too.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from flowpolicies.algorithms import ALGORITHMS, OfflineAlgorithm


def one_of_each_file() -> list[str]:
    """Names of algorithms, one of each file: that with the most losses, of which the others of the file share some."""
    most: dict[str, type[OfflineAlgorithm]] = {}
    for cls in ALGORITHMS.values():
        known = most.setdefault(cls.__module__, cls)
        most[cls.__module__] = max(known, cls, key=lambda cls: len(cls.losses))
    return [cls.name for cls in most.values()]


def rest_in_more(often: Collection[str]) -> list[Any]:
    """Parameters for all algorithms, of which those that are not named have the mark `more`."""
    assert set(often) <= set(ALGORITHMS), set(often) - set(ALGORITHMS)
    return [
        pytest.param(cls, id=name, marks=[] if name in often else pytest.mark.more) for name, cls in ALGORITHMS.items()
    ]
