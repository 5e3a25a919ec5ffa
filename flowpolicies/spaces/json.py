"""Gymnasium spaces as JSON, so that files can carry them without pickle, and spaces of arrays that came without."""

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Space

from flowpolicies.data.dataset.checks import BOUND_TOLERANCE, DataFault, place

Array = npt.NDArray[Any]

ACTION_MARGIN = 1e-5
"""How far inside the bounds `clip_inside` leaves actions, as a share of half the range."""


def clip_inside(actions: Array, space: Space[Any]) -> Array:
    """Actions clipped to a little inside the bounds, float32: a policy that squashes never quite reaches them.

    Raises:
        ValueError: if the space is no Box of the shape of an action, with bounds.
    """
    if not isinstance(space, Box) or space.shape != actions.shape[1:] or not space.is_bounded():
        raise ValueError(
            f"actions of shape {actions.shape[1:]} cannot be clipped to {space}: it needs a Box with bounds."
        )
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    middle, half = (low + high) / 2, (1 - ACTION_MARGIN) * (high - low) / 2
    bounds = [(middle + side * half).astype(np.float32) for side in (-1, 1)]
    clipped: Array = np.clip(actions, *bounds, dtype=np.float32)
    return clipped


def space_to_json(space: Space[Any]) -> dict[str, Any]:
    """The space as plain JSON data; `space_from_json` gives an equal space back.

    Bounds are one number if all are equal, and a flat list otherwise; infinities are the strings "inf" and "-inf".

    Raises:
        ValueError: for anything but a Box or a Dict of them.
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
        ValueError: if `data` describes no Box and no Dict.
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
    # An integer must not pass through a float on its way to an integer dtype: int64 bounds would be rounded.
    flat = [float(value) if isinstance(value, str) else value for value in np.ravel(np.array(values, dtype=object))]
    array = np.array(flat, dtype=dtype)
    return np.full(shape, array[0], dtype) if array.size == 1 else array.reshape(shape)


def infer_observation_space(observations: Array | dict[str, Array]) -> Box | Dict:
    """Unbounded boxes of the arrays' shapes; bytes lie in 0..255."""
    if isinstance(observations, dict):
        return Dict({key: _infer_box(part) for key, part in observations.items()})
    return _infer_box(observations)


def _infer_box(array: Array) -> Box:
    if array.dtype == np.uint8:
        return Box(0, 255, shape=array.shape[1:], dtype=np.uint8)
    return Box(-np.inf, np.inf, shape=array.shape[1:], dtype=np.float32)


def infer_action_space(name: str, actions: Array, terminals: Array) -> Box:
    """[-1, 1], if the actions lie in it; else a DataFault says what to pass."""
    beyond = np.abs(actions) > 1 + BOUND_TOLERANCE  # NaN compares false here and is reported by the checks.
    if beyond.any():
        row = int(np.flatnonzero(beyond.reshape(len(actions), -1).any(1))[0])
        raise DataFault(
            f"dataset '{name}': actions range from {actions.min():.6g} to {actions.max():.6g}, so their bounds cannot "
            f"be guessed (first beyond [-1, 1] in {place(row, terminals)}). Pass action_space=gymnasium.spaces.Box("
            "low, high, shape)."
        )
    return Box(-1.0, 1.0, shape=actions.shape[1:], dtype=np.float32)
