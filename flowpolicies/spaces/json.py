"""Gymnasium spaces as JSON, so that files can store them without pickle."""

import math
import reprlib
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

MAX_ELEMENTS, MAX_PARTS, MAX_CATEGORIES = 1 << 22, 1000, 1 << 16
"""Largest numbers: of elements of a space that is read, such as 4 images of 1024 x 1024 pixels; of the spaces in
a Dict; and of the elements of a MultiDiscrete or MultiBinary."""
DTYPES = [
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
]
"""Names of the types that a space may have."""


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


def space_from_json(data: Any) -> Space[Any]:
    """The space that `space_to_json` described.

    The keys of a Dict have the order of the list `order`; in files of older versions, which have no such list, the
    order in which the file holds them, which is that of the space that was written.

    Raises:
        ValueError: if `data` describes another space, one with more than `MAX_ELEMENTS` elements, or none at all.
    """
    if not isinstance(data, dict):
        raise ValueError(f"a space is described by an object, got {reprlib.repr(data)}")
    match data.get("type"):
        case "Box":
            shape, dtype = _sizes(_part(data, "shape"), "the shape of a Box"), _dtype(data)
            low = _bounds_from_json(_part(data, "low"), shape, dtype)
            high = _bounds_from_json(_part(data, "high"), shape, dtype)
            return Box(low, high, shape=shape, dtype=dtype.type)
        case "Discrete":
            (n,), start = _sizes([_part(data, "n")], "n of a Discrete"), _part(data, "start")
            if not _is_whole(start):
                raise ValueError(f"the start of a Discrete must be a whole number, got {reprlib.repr(start)}")
            return Discrete(n, start=start, dtype=_dtype(data).type)
        case "MultiDiscrete":
            nvec, start = (np.array(_part(data, key), dtype=np.int64) for key in ("nvec", "start"))
            _check_categories(nvec.size)
            _sizes([int(nvec.sum(dtype=np.float64))], "nvec of a MultiDiscrete")
            return MultiDiscrete(nvec, dtype=_dtype(data).type, start=start)
        case "MultiBinary":
            n = _part(data, "n")
            sizes = _sizes(n if isinstance(n, list) else [n], "n of a MultiBinary")
            _check_categories(math.prod(sizes))
            return MultiBinary(list(sizes) if isinstance(n, list) else sizes[0])
        case "Dict":
            return _dict_from_json(data)
        case other:
            raise ValueError(
                f"cannot read a space of type {reprlib.repr(other)}: only Box, Discrete, MultiDiscrete, MultiBinary "
                "and Dict are supported"
            )


def _dict_from_json(data: dict[str, Any]) -> Dict:
    parts = _part(data, "spaces")
    if not isinstance(parts, dict) or not 1 <= len(parts) <= MAX_PARTS:
        raise ValueError(f"the spaces of a Dict must be an object of 1 to {MAX_PARTS} spaces")
    order = data.get("order", list(parts))
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(parts):
        raise ValueError("the order of a Dict must list its keys, each once")
    # Pairs, because gymnasium sorts the keys of a plain dict.
    found = [(key, space_from_json(parts[key])) for key in order]
    if sum(math.prod(space.shape or ()) for _, space in found) > MAX_ELEMENTS:
        raise ValueError(f"a Dict may have at most {MAX_ELEMENTS:,} elements")
    return Dict(found)


def _part(data: dict[str, Any], key: str) -> Any:
    if key not in data:
        raise ValueError(f"a space of type {reprlib.repr(data['type'])} lacks {key!r}")
    return data[key]


def _is_whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and abs(number) < 1 << 62


def _sizes(sizes: Any, what: str) -> tuple[int, ...]:
    """Sizes of at least 1, whose product is at most `MAX_ELEMENTS`."""
    if not isinstance(sizes, list) or not all(_is_whole(size) and size >= 1 for size in sizes) or len(sizes) > 16:
        raise ValueError(f"{what} must consist of whole numbers of at least 1, got {reprlib.repr(sizes)}")
    if math.prod(sizes) > MAX_ELEMENTS:
        raise ValueError(f"{what} may declare at most {MAX_ELEMENTS:,} elements, got {math.prod(sizes):,}")
    return tuple(sizes)


def _check_categories(number: int) -> None:
    if number > MAX_CATEGORIES:
        raise ValueError(f"a space may have at most {MAX_CATEGORIES:,} categories, got {number:,}")


def _dtype(data: dict[str, Any]) -> np.dtype[Any]:
    name = _part(data, "dtype")
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(f"the type of a space must be one of {', '.join(DTYPES)}, got {reprlib.repr(name)}")
    return np.dtype(name)


def _bounds_to_json(bounds: npt.NDArray[Any]) -> Any:
    values = [str(value) if np.isinf(value) else value for value in bounds.ravel().tolist()]
    return values[0] if len(set(values)) == 1 else values


def _bounds_from_json(values: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    # Integers are kept as they are until they have their type: as floats, large int64 bounds would be rounded.
    flat = [_bound(value) for value in (values if isinstance(values, list) else [values])]
    array = np.array(flat, dtype=dtype)
    if np.isnan(array).any():
        raise ValueError("the bounds of a Box must not be NaN")
    if len(flat) not in (1, math.prod(shape)):
        raise ValueError(f"a Box of shape {shape} has {len(flat)} bounds")
    return np.full(shape, array[0], dtype) if len(flat) == 1 else array.reshape(shape)


def _bound(value: Any) -> Any:
    if value in ("inf", "-inf"):
        return float(value)
    if not isinstance(value, int | float):
        raise ValueError(f'the bounds of a Box must be numbers, "inf" or "-inf", got {reprlib.repr(value)}')
    return value
