"""Gymnasium spaces as JSON, so that files can store them without pickle."""

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space


def space_to_json(space: Space[Any]) -> dict[str, Any]:
    """The space as plain JSON data, from which `space_from_json` makes an equal space.

    A bound is one number if it is the same in all dimensions, and a flat list otherwise. Infinite bounds are written
    as the strings "inf" and "-inf". The order of a Dict's keys is that of flat observations, and so part of the space;
    it is also written as a list, because programs that rewrite JSON may sort the keys of an object.

    Raises:
        ValueError: if the space is not Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of these.
    """
    match space:
        case Box():
            return {
                "type": "Box",
                "shape": list(space.shape),
                "dtype": np.dtype(space.dtype).name,
                "low": _bounds_to_json(space.low),
                "high": _bounds_to_json(space.high),
            }
        case Discrete():
            n, start = int(space.n), int(space.start)
            return {"type": "Discrete", "n": n, "start": start, "dtype": np.dtype(space.dtype).name}
        case MultiDiscrete():
            return {
                "type": "MultiDiscrete",
                "nvec": space.nvec.tolist(),
                "start": space.start.tolist(),
                "dtype": np.dtype(space.dtype).name,
            }
        case MultiBinary():
            return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
        case Dict():
            parts = {key: space_to_json(part) for key, part in space.spaces.items()}
            return {"type": "Dict", "order": list(parts), "spaces": parts}
    raise ValueError(
        f"cannot write {space} as JSON: only Box, Discrete, MultiDiscrete, MultiBinary, and Dict of these, are "
        "supported"
    )


def space_from_json(data: dict[str, Any]) -> Space[Any]:
    """The space that `space_to_json` described.

    The keys of a Dict have the order of the list `order`; in files of older versions, which have no such list, the
    order in which the file holds them, which is that of the space that was written.

    Raises:
        ValueError: if `data` describes another space.
    """
    match data.get("type"):
        case "Box":
            shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
            low = _bounds_from_json(data["low"], shape, dtype)
            high = _bounds_from_json(data["high"], shape, dtype)
            return Box(low, high, shape=shape, dtype=dtype.type)
        case "Discrete":
            return Discrete(data["n"], start=data["start"], dtype=np.dtype(data["dtype"]).type)
        case "MultiDiscrete":
            dtype = np.dtype(data["dtype"])
            return MultiDiscrete(np.array(data["nvec"]), dtype=dtype.type, start=np.array(data["start"]))
        case "MultiBinary":
            return MultiBinary(data["n"])
        case "Dict":
            # Pairs, because gymnasium sorts the keys of a plain dict.
            parts = data["spaces"]
            return Dict([(key, space_from_json(parts[key])) for key in data.get("order", parts)])
        case other:
            raise ValueError(
                f"cannot read a space of type {other!r}: only Box, Discrete, MultiDiscrete, MultiBinary and Dict are "
                "supported"
            )


def _bounds_to_json(bounds: npt.NDArray[Any]) -> Any:
    values = [str(value) if np.isinf(value) else value for value in bounds.ravel().tolist()]
    return values[0] if len(set(values)) == 1 else values


def _bounds_from_json(values: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    # Integers are kept as they are until they have their type: as floats, large int64 bounds would be rounded.
    flat = [float(value) if isinstance(value, str) else value for value in np.ravel(np.array(values, dtype=object))]
    array = np.array(flat, dtype=dtype)
    return np.full(shape, array[0], dtype) if array.size == 1 else array.reshape(shape)
