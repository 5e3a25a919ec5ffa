"""Files of plain data: an .npz archive with the arrays, and the rest as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flowpolicies.artifacts import ArtifactError, parse_json, reading
from flowpolicies.data.dataset.npz import read_npz
from flowpolicies.tree import Array

_PLAN = "plan"


def write_state(file: BinaryIO, state: Any) -> None:
    """Writes plain data: None, numbers, text, arrays, lists, and dicts whose keys are text.

    Raises:
        TypeError: for anything else.
    """
    arrays: list[Array] = []
    plan = json.dumps(_pack(state, arrays), allow_nan=False)
    members: dict[str, Any] = {_PLAN: np.frombuffer(plan.encode(), np.uint8)}
    members |= {f"a{i}": array for i, array in enumerate(arrays)}
    np.savez(file, **members)


def read_state(path: Path) -> Any:
    """Reads what `write_state` wrote. Nothing in the file is executed.

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if it is damaged, or another kind of file.
    """
    with reading(path):
        arrays = read_npz(path)
    if _PLAN not in arrays:
        raise ArtifactError(path, "it is not a file of a checkpoint's state")
    plan = parse_json(arrays.pop(_PLAN).tobytes(), path)
    with reading(path):
        return _unpack(plan, arrays)


def _pack(value: Any, arrays: list[Array]) -> Any:
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"@": len(arrays) - 1}
    if isinstance(value, float) and not math.isfinite(value):
        return {"@": str(value)}
    if isinstance(value, list):
        return [_pack(item, arrays) for item in value]
    if isinstance(value, dict):
        return {key: _pack(item, arrays) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"plain data hold no object of {type(value).__name__}")


def _unpack(value: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"@"}:
        place = value["@"]
        return float(place) if isinstance(place, str) else arrays[f"a{place}"]
    return {key: _unpack(item, arrays) for key, item in value.items()}


def difference(one: Any, other: Any, place: str = "state") -> str | None:
    """Where two pieces of plain data differ, also in types, shapes or single bits; None: nowhere."""
    if type(one) is not type(other):
        return place
    if isinstance(one, np.ndarray):
        alike = one.shape == other.shape and one.dtype == other.dtype
        return None if alike and one.tobytes() == other.tobytes() else place
    if not isinstance(one, dict | list):
        return None if one == other or one != one else place
    if len(one) != len(other) or (isinstance(one, dict) and one.keys() != other.keys()):
        return place
    pairs: Any = one.items() if isinstance(one, dict) else enumerate(one)
    found = (difference(item, other[key], f"{place}[{key!r}]") for key, item in pairs)
    return next((where for where in found if where is not None), None)
