"""Gymnasium spaces as JSON, so that files can store them without pickle."""

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Space


def space_to_json(space: Space[Any]) -> dict[str, Any]:
    """The space as plain JSON data, from which `space_from_json` makes an equal space.

    A bound is one number if it is the same in all dimensions, and a flat list otherwise. Infinite bounds are written
    as the strings "inf" and "-inf".

    Raises:
        ValueError: if the space is neither a Box nor a Dict of such spaces.
    """
    if isinstance(space, Box):
        return {
            "type": "Box",
            "shape": list(space.shape),
            "dtype": np.dtype(space.dtype).name,
            "low": _bounds_to_json(space.low),
            "high": _bounds_to_json(space.high),
        }
    if isinstance(space, Dict):
        return {"type": "Dict", "spaces": {key: space_to_json(part) for key, part in space.spaces.items()}}
    raise ValueError(f"cannot write {space} as JSON: only Box, and Dict of Box, are supported")


def space_from_json(data: dict[str, Any]) -> Box | Dict:
    """The space that `space_to_json` described.

    Raises:
        ValueError: if `data` describes neither a Box nor a Dict.
    """
    match data.get("type"):
        case "Box":
            shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
            low = _bounds_from_json(data["low"], shape, dtype)
            high = _bounds_from_json(data["high"], shape, dtype)
            return Box(low, high, shape=shape, dtype=dtype.type)
        case "Dict":
            return Dict({key: space_from_json(part) for key, part in data["spaces"].items()})
        case other:
            raise ValueError(f"cannot read a space of type {other!r}: only 'Box' and 'Dict' are supported")


def _bounds_to_json(bounds: npt.NDArray[Any]) -> Any:
    values = [str(value) if np.isinf(value) else value for value in bounds.ravel().tolist()]
    return values[0] if len(set(values)) == 1 else values


def _bounds_from_json(values: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    # Integers are kept as they are until they have their type: as floats, large int64 bounds would be rounded.
    flat = [float(value) if isinstance(value, str) else value for value in np.ravel(np.array(values, dtype=object))]
    array = np.array(flat, dtype=dtype)
    return np.full(shape, array[0], dtype) if array.size == 1 else array.reshape(shape)
