"""Gymnasium spaces from the JSON in data files, whose declared sizes are checked before memory is used."""

from __future__ import annotations

import math
import os
from typing import Any

from gymnasium.spaces import Space

from flowpolicies.artifacts import ArtifactError, reading
from flowpolicies.spaces.json import space_from_json

MOST_NUMBERS = 1 << 24
"""Greatest number of components of a space, and of categories: 16.8 million. An image of 2048 by 2048 has 12.6."""


def read_space(data: Any, path: str | os.PathLike[str], place: str) -> Space[Any]:
    """The space that `flowpolicies.spaces.json.space_to_json` described.

    Args:
        data: a value from `flowpolicies.artifacts.parse_json`.
        path: the file, for messages.
        place: the place in the file, for messages.

    Raises:
        ArtifactError: if it does not describe a space, or one with more than `MOST_NUMBERS` components.
    """
    with reading(path, place):
        _check(data, path, place)
        return space_from_json(data)


def _check(data: Any, path: str | os.PathLike[str], place: str) -> None:
    if not isinstance(data, dict):
        raise ArtifactError(path, f"a space is described by an object, not by {type(data).__name__}", place=place)
    for key, part in (data.get("spaces") or {}).items():
        _check(part, path, f"{place}, key {key[:80]!r}")
    for key in ("shape", "n"):
        check_size(data.get(key, 1), path, f"{place}, {key}")


def check_size(size: Any, path: str | os.PathLike[str], place: str) -> None:
    """Checks a declared number of components, or a shape.

    Raises:
        ArtifactError: if it does not consist of whole numbers from 0 on, or is more than `MOST_NUMBERS` in all.
    """
    sizes = size if isinstance(size, list) else [size]
    if not all(isinstance(part, int) and not isinstance(part, bool) and part >= 0 for part in sizes):
        raise ArtifactError(path, f"{str(size)[:80]} is not a size", place=place)
    if len(sizes) > 32 or math.prod(max(part, 1) for part in sizes) > MOST_NUMBERS:
        raise ArtifactError(path, f"{str(size)[:80]} are too many; at most {MOST_NUMBERS:,} are read", place=place)
