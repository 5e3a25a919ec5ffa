"""Gymnasium spaces of pickles: made anew from their public parts, so that no part contradicts another."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from flowpolicies.spaces.json import MAX_ELEMENTS


def fill_space(made: Any, state: Any) -> None:
    """Gives a space its state.

    Raises:
        ValueError: if a part is missing or contradicts another one.
    """
    if type(state) is not dict:
        raise ValueError("a space has a state that is not a dict of names")
    parts = state
    generator = parts.get("_np_random", parts.get("np_random"))
    if generator is not None and not isinstance(generator, np.random.Generator):
        raise ValueError("a space has a generator of another kind")
    clean: Any = _clean(made, parts)
    kept = {"sort_keys": parts["sort_keys"]} if type(parts.get("sort_keys")) is bool else {}
    made.__dict__.update({**vars(clean), **kept, "_np_random": generator})


def _clean(made: Any, parts: dict[str, Any]) -> spaces.Space[Any]:
    match made:
        case spaces.Box():
            low, high = parts["low"], parts["high"]
            if not (isinstance(low, np.ndarray) and isinstance(high, np.ndarray) and low.shape == high.shape):
                raise ValueError("the bounds of a Box are not two arrays of one shape")
            if low.size > MAX_ELEMENTS or np.isnan(low).any() or np.isnan(high).any():
                raise ValueError(f"the bounds of a Box are not numbers, or are more than {MAX_ELEMENTS:,}")
            return spaces.Box(low, high, shape=low.shape, dtype=_dtype(parts).type)
        case spaces.Discrete():
            n, start = int(parts["n"]), int(parts.get("start", 0))
            return spaces.Discrete(n, start=start, **_discrete_type(parts))
        case spaces.MultiDiscrete():
            nvec, dtype = np.asarray(parts["nvec"]), _dtype(parts)
            start = parts.get("start", np.zeros_like(nvec))
            return spaces.MultiDiscrete(nvec, dtype=dtype.type, start=np.asarray(start))
        case spaces.MultiBinary():
            return spaces.MultiBinary(_binary(parts["n"]))
    inside = dict(parts["spaces"])
    if not all(type(key) is str and isinstance(part, spaces.Space) for key, part in inside.items()):
        raise ValueError("a Dict holds something that is not a space")
    return spaces.Dict(list(inside.items()))  # Pairs keep their order.


def _binary(n: Any) -> Any:
    sizes = [int(size) for size in n] if isinstance(n, tuple | list | np.ndarray) else [int(n)]
    if not 1 <= np.prod(np.array(sizes, dtype=np.float64)) <= MAX_ELEMENTS or min(sizes) < 1:
        raise ValueError(f"a MultiBinary has no elements, or more than {MAX_ELEMENTS:,}")
    return tuple(sizes) if isinstance(n, tuple | list | np.ndarray) else sizes[0]


def _dtype(parts: dict[str, Any]) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(parts["dtype"])
    if dtype.kind not in "biuf":
        raise ValueError("a space has no type of numbers")
    return dtype


def _discrete_type(parts: dict[str, Any]) -> dict[str, Any]:
    dtype = parts.get("dtype")
    return {} if dtype is None else {"dtype": np.dtype(dtype).type}
