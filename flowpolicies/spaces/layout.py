"""Observations as flat vectors and actions scaled to [-1, 1], and what spaces must be like for both."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from flowpolicies.tree import Array, leaf_at, tree_map

Observations = Array | Mapping[str, Array]
"""Observations `[N, *shape]` of a Box space, or one such array for each key of a Dict space."""

ACTION_MARGIN = 1e-5
"""Distance that `clip_inside` keeps from the bounds, as a fraction of half the range of an action."""


class Entry(NamedTuple):
    """The part of a flat observation that comes from one Box."""

    key: str | None
    """Key of the Box in its Dict space, or None if the space is the Box itself."""
    shape: tuple[int, ...]
    """Shape of the Box."""
    image: bool
    """Whether the Box holds images: uint8, three axes, channels first."""


def observation_layout(space: spaces.Space[Any]) -> list[Entry]:
    """The entries of a flat observation: one for a Box, or one for each key of a Dict of Boxes, in its order.

    Raises:
        ValueError: if the space is neither a Box nor a Dict of Boxes.
    """
    boxes: list[tuple[str | None, Any]] = [(None, space)]
    if isinstance(space, spaces.Dict):
        boxes = [*space.spaces.items()]
    if all(isinstance(box, spaces.Box) for _, box in boxes):
        return [_entry(key, box) for key, box in boxes]
    raise ValueError(
        f"observations must be a Box or a Dict of Boxes, got {space}. Wrap the environment, for example with "
        "gymnasium.wrappers.FlattenObservation."
    )


def _entry(key: str | None, box: spaces.Box) -> Entry:
    return Entry(key, box.shape, box.dtype == np.uint8 and len(box.shape) == 3)


def observation_dim(space: spaces.Space[Any]) -> int:
    """Number of elements O of a flat observation."""
    return sum(math.prod(entry.shape) for entry in observation_layout(space))


def flat_dtype(space: spaces.Space[Any]) -> torch.dtype:
    """Type of flat observations: uint8 if all entries are images, float32 otherwise."""
    return torch.uint8 if all(entry.image for entry in observation_layout(space)) else torch.float32


def flatten_tensors(space: spaces.Space[Any], observations: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Flat observations `[N, O]` of type `flat_dtype`, from tensors `[N, *shape]`."""
    dtype = flat_dtype(space)
    parts = [leaf_at(observations, entry.key) for entry in observation_layout(space)]
    flat = [part.reshape(part.shape[0], -1).to(dtype) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat, -1)


def flatten_arrays(space: spaces.Space[Any], observations: Observations) -> Tensor:
    """Flat observations `[N, O]` of type `flat_dtype`, from arrays `[N, *shape]`; shares their memory if possible."""
    return flatten_tensors(space, tree_map(as_tensor, observations))


def as_tensor(array: Array) -> Tensor:
    """A tensor that shares the memory of the array, which may be a read-only memory map: never write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array))


def unflatten(space: spaces.Space[Any], flat: Tensor) -> Array | dict[str, Array]:
    """The observations, with the structure and shapes of the space, from flat observations `[N, O]`."""
    layout = observation_layout(space)
    columns = torch.split(flat.cpu(), [math.prod(entry.shape) for entry in layout], -1)
    arrays: list[Array] = [c.reshape(-1, *e.shape).numpy() for e, c in zip(layout, columns, strict=True)]
    if layout[0].key is None:
        return arrays[0]
    return {str(entry.key): array for entry, array in zip(layout, arrays, strict=True)}


def scale_actions(space: spaces.Box, actions: Array) -> Array:
    """Actions `[N, A]` in [-1, 1], float32, from actions `[N, *shape]` in the units of the space."""
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    is_unit = np.all(low == -1) and np.all(high == 1)
    scaled = actions if is_unit else 2 * (actions - low) / (high - low) - 1
    return scaled.reshape(len(actions), -1).astype(np.float32, copy=False)


def clip_inside(actions: Array, space: spaces.Space[Any]) -> Array:
    """Actions clipped to slightly inside the bounds of the space, float32; see `ACTION_MARGIN`.

    Papers do so because a policy that squashes its actions by a tanh never reaches the bounds.

    Raises:
        ValueError: unless the space is a Box with bounds, and has the shape of one action.
    """
    if not isinstance(space, spaces.Box) or space.shape != actions.shape[1:] or not space.is_bounded():
        raise ValueError(
            f"actions of shape {actions.shape[1:]} cannot be clipped to {space}: it needs a Box with bounds."
        )
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    middle, half = (low + high) / 2, (1 - ACTION_MARGIN) * (high - low) / 2
    bounds = [(middle + side * half).astype(np.float32) for side in (-1, 1)]
    clipped: Array = np.clip(actions, *bounds, dtype=np.float32)
    return clipped


def check_action_space(space: spaces.Space[Any], who: str) -> spaces.Box:
    """The given space, once it is known to be a Box with finite bounds.

    Args:
        space: the action space.
        who: the algorithm or policy that acts in it, named in the message.

    Raises:
        ValueError: if it is another space, a bound is infinite, or a lower bound is not below its upper bound.
    """
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"{who} acts in continuous spaces (gymnasium.spaces.Box), got {space}. "
            "For discrete actions use an algorithm made for them, such as stable_baselines3.DQN."
        )
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(
            f"{who} needs a Box with finite bounds, because actions are scaled to [-1, 1]; got low={space.low}, "
            f"high={space.high}. Wrap the environment with gymnasium.wrappers.RescaleAction, or pass "
            "action_space=Box(low, high) with the dataset."
        )
    if not (space.low < space.high).all():
        raise ValueError(f"{who} needs low < high in every action dimension, got low={space.low}, high={space.high}.")
    return space


def check_space_fits(part: str, own: spaces.Space[Any], theirs: spaces.Space[Any]) -> None:
    """Checks that data of a dataset's space can be used by a model.

    Args:
        part: the name of the space for the message, such as "observation_space".
        own: the space of the model.
        theirs: the space of the dataset.

    Raises:
        ValueError: if the two do not fit, see `space_fits`.
    """
    if not space_fits(own, theirs):
        raise ValueError(
            f"the dataset's {part} does not match the model's: dataset {theirs}, model {own}. "
            "Use data of this environment, or wrap the environment so that both agree."
        )


def space_fits(own: spaces.Space[Any], theirs: spaces.Space[Any]) -> bool:
    """Whether data of one space can be used in the other: equal keys and shapes, and bounds that agree.

    Bounds agree if they are close to each other, or if one of the two spaces has an infinite bound.
    """
    if isinstance(own, spaces.Dict) and isinstance(theirs, spaces.Dict):
        keys = own.spaces.keys()
        return keys == theirs.spaces.keys() and all(space_fits(own[key], theirs[key]) for key in keys)
    if not (isinstance(own, spaces.Box) and isinstance(theirs, spaces.Box)) or own.shape != theirs.shape:
        return False
    if np.isfinite(own.low).all() and np.isfinite(theirs.low).all():
        return np.allclose(own.low, theirs.low) and np.allclose(own.high, theirs.high)
    return True
