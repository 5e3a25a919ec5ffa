"""Observations as flat vectors: how a space is laid out, and the way there and back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

Observations = np.ndarray | Mapping[str, np.ndarray]


class Entry(NamedTuple):
    """One stretch of the flat observation."""

    key: str | None
    """Key of a Dict space; None for a plain Box."""
    shape: tuple[int, ...]
    image: bool
    """uint8 with three axes, channels first."""


def observation_layout(space: spaces.Space[Any]) -> list[Entry]:
    """The entries of a Box, or of a Dict of Boxes in the order of its keys.

    Raises:
        ValueError: for any other space.
    """
    if isinstance(space, spaces.Box):
        return [_entry(None, space)]
    if isinstance(space, spaces.Dict) and all(isinstance(box, spaces.Box) for box in space.spaces.values()):
        return [_entry(key, box) for key, box in space.spaces.items()]  # type: ignore[arg-type]
    raise ValueError(
        f"observations must be a Box or a Dict of Boxes, got {space}. Wrap the environment, for example with "
        "gymnasium.wrappers.FlattenObservation."
    )


def _entry(key: str | None, box: spaces.Box) -> Entry:
    return Entry(key, box.shape, box.dtype == np.uint8 and len(box.shape) == 3)


def observation_dim(space: spaces.Space[Any]) -> int:
    """Width O of the flat observation."""
    return sum(math.prod(entry.shape) for entry in observation_layout(space))


def flat_dtype(space: spaces.Space[Any]) -> torch.dtype:
    """uint8 if everything is an image, else float32."""
    return torch.uint8 if all(entry.image for entry in observation_layout(space)) else torch.float32


def flatten_tensors(space: spaces.Space[Any], observations: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Observations with one leading axis -> `[N, O]`, in `flat_dtype`."""
    dtype = flat_dtype(space)
    parts = [observations if key is None else observations[key] for key, _, _ in observation_layout(space)]  # type: ignore[index]
    flat = [part.reshape(part.shape[0], -1).to(dtype) for part in parts]  # type: ignore[union-attr]
    return flat[0] if len(flat) == 1 else torch.cat(flat, -1)


def flatten_arrays(space: spaces.Space[Any], observations: Observations) -> Tensor:
    """`flatten_tensors` of numpy arrays; shares their memory where it can."""
    if isinstance(observations, Mapping):
        return flatten_tensors(space, {key: as_tensor(array) for key, array in observations.items()})
    return flatten_tensors(space, as_tensor(observations))


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor on the array's memory, also if that is a read-only memory map; nobody writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array))


def unflatten(space: spaces.Space[Any], flat: Tensor) -> np.ndarray | dict[str, np.ndarray]:
    """`[N, O]` -> arrays of the space's shapes."""
    layout = observation_layout(space)
    columns = torch.split(flat.cpu(), [math.prod(entry.shape) for entry in layout], -1)
    arrays: list[np.ndarray] = [c.reshape(-1, *e.shape).numpy() for e, c in zip(layout, columns, strict=True)]
    if layout[0].key is None:
        return arrays[0]
    return {str(entry.key): array for entry, array in zip(layout, arrays, strict=True)}


def scale_actions(space: spaces.Box, actions: np.ndarray) -> np.ndarray:
    """Actions of the space -> [-1, 1], `[N, A]` float32; bounds need not be symmetric."""
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    is_unit = np.all(low == -1) and np.all(high == 1)
    scaled = actions if is_unit else 2 * (actions - low) / (high - low) - 1
    return scaled.reshape(len(actions), -1).astype(np.float32, copy=False)


def check_action_space(space: spaces.Space[Any], who: str) -> spaces.Box:
    """The space, if it is a Box with finite bounds.

    Raises:
        ValueError: otherwise, with what to do.
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
    """Raises a ValueError unless a dataset's space is the model's."""
    if not space_fits(own, theirs):
        raise ValueError(
            f"the dataset's {part} does not match the model's: dataset {theirs}, model {own}. "
            "Use data of this environment, or wrap the environment so that both agree."
        )


def space_fits(own: spaces.Space[Any], theirs: spaces.Space[Any]) -> bool:
    """Whether data of one space can be used in the other; infinite bounds fit any, finite ones must agree."""
    if isinstance(own, spaces.Dict) and isinstance(theirs, spaces.Dict):
        keys = own.spaces.keys()
        return keys == theirs.spaces.keys() and all(space_fits(own[key], theirs[key]) for key in keys)
    if not (isinstance(own, spaces.Box) and isinstance(theirs, spaces.Box)) or own.shape != theirs.shape:
        return False
    if np.isfinite(own.low).all() and np.isfinite(theirs.low).all():
        return np.allclose(own.low, theirs.low) and np.allclose(own.high, theirs.high)
    return True
