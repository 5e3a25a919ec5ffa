"""Gymnasium spaces from Minari's metadata, whose declared sizes are checked before memory is used."""

from __future__ import annotations

import os
from typing import Any

from gymnasium.spaces import Space
from minari.serialization import deserialize_space

from flowpolicies.artifacts import ArtifactError, parse_json, reading
from flowpolicies.data.reading.spaces import check_size


def read_space(text: object, path: str | os.PathLike[str], key: str) -> Space[Any]:
    """The space that Minari serialized.

    Args:
        text: The value in the metadata, which is JSON as text.
        path: Path of the metadata, for messages.
        key: Key in the metadata, for messages.

    Raises:
        ArtifactError: if it does not describe a space, or one that is too large.
    """
    if not isinstance(text, str):
        raise ArtifactError(path, "it is not text", place=key)
    data = parse_json(text, path, key)
    with reading(path, key, "It does not describe a space of Gymnasium."):
        _check(data, path, key)
        space: Space[Any] = deserialize_space(data)
        return space


def _check(data: Any, path: str | os.PathLike[str], place: str) -> None:
    inner = data.get("subspaces") or {}
    parts = inner.items() if isinstance(inner, dict) else enumerate(inner)
    for name, part in parts:
        _check(part, path, f"{place}, {str(name)[:80]}")
    for size in ("shape", "n"):
        check_size(data.get(size, 1), path, f"{place}, {size}")
