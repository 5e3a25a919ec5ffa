"""Observations as flat vectors and actions scaled to [-1, 1], and what spaces must be like for both.

A flat vector holds categories, the values of Discrete and MultiDiscrete spaces, as one number each, so that a replay
buffer needs no more memory for 500 categories than for one number. Networks see them as one-hot vectors, which
`flowpolicies.networks.ObservationEncoder` makes.
"""

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
"""Observations `[N, *shape]` of one space, or one such array for each key of a Dict space."""

OBSERVABLE = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""The spaces that an observation, or a value of a Dict of observations, may have."""

ACTION_MARGIN = 1e-5
"""Distance that `clip_inside` keeps from the bounds, as a fraction of half the range of an action."""


class Entry(NamedTuple):
    """The part of a flat observation that comes from one space that is not a Dict."""

    key: str | None
    """Key of the space in its Dict space, or None if the observation space is not a Dict."""
    shape: tuple[int, ...]
    """Shape of the observations of the space."""
    image: bool
    """Whether the space holds images, see `is_image_space`."""
    categories: tuple[tuple[int, int], ...] = ()
    """Smallest value and number of values of each element, if the elements are categories; empty for numbers."""


def observation_layout(space: spaces.Space[Any]) -> list[Entry]:
    """The entries of a flat observation: one, or one for each key of a Dict, in the order of the Dict.

    Raises:
        ValueError: if the space is not Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of these.
    """
    parts: list[tuple[str | None, Any]] = [(None, space)]
    if isinstance(space, spaces.Dict):
        parts = [*space.spaces.items()]
    if all(isinstance(part, OBSERVABLE) for _, part in parts):
        return [_entry(key, part) for key, part in parts]
    raise ValueError(
        f"observations must be a Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of these, got {space}. "
        "Wrap the environment, for example with gymnasium.wrappers.FlattenObservation."
    )


def _entry(key: str | None, part: spaces.Space[Any]) -> Entry:
    return Entry(key, part.shape or (), is_image_space(part), categories_of(part))


def categories_of(space: spaces.Space[Any]) -> tuple[tuple[int, int], ...]:
    """Smallest value and number of values of each element of a Discrete or MultiDiscrete space; empty for others."""
    if isinstance(space, spaces.Discrete):
        return ((int(space.start), int(space.n)),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(zip(np.ravel(space.start).tolist(), np.ravel(space.nvec).tolist(), strict=True))
    return ()


def observation_dim(space: spaces.Space[Any]) -> int:
    """Number of elements O of a flat observation."""
    return sum(math.prod(entry.shape) for entry in observation_layout(space))


def flat_dtype(space: spaces.Space[Any]) -> torch.dtype:
    """Type of flat observations: uint8 if all entries are images, float32 otherwise."""
    return torch.uint8 if all(entry.image for entry in observation_layout(space)) else torch.float32


def flatten_tensors(space: spaces.Space[Any], observations: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Flat observations `[N, O]` of type `flat_dtype`, from tensors `[N, *shape]`.

    Raises:
        ValueError: if a category is not one of the values of its space, or a pixel is not an integer from 0 to 255.
    """
    layout = observation_layout(space)
    dtype = torch.uint8 if all(entry.image for entry in layout) else torch.float32
    parts = [leaf_at(observations, entry.key) for entry in layout]
    for entry, part in zip(layout, parts, strict=True):
        if entry.image and part.dtype != torch.uint8:
            _check_pixels(entry, part)
    flat = [part.reshape(part.shape[0], -1).to(dtype) for part in parts]
    for entry, columns in zip(layout, flat, strict=True):
        if entry.categories:
            _check_categories(entry, columns)
    return flat[0] if len(flat) == 1 else torch.cat(flat, -1)


def _named(entry: Entry) -> str:
    return "observations" if entry.key is None else f"observations[{entry.key!r}]"


def _check_pixels(entry: Entry, part: Tensor) -> None:
    is_bytes = not part.is_floating_point() and (part.numel() == 0 or (part.min() >= 0 and part.max() <= 255))
    if not is_bytes:
        raise ValueError(
            f"{_named(entry)} are images, and pixels are integers from 0 to 255, but these are {part.dtype} from "
            f"{part.min():g} to {part.max():g}. Images as floats between 0 and 1 are converted by "
            '(255 * images).round().astype("uint8").'
        )


def _check_categories(entry: Entry, columns: Tensor) -> None:
    low, counts = torch.tensor(entry.categories, dtype=columns.dtype, device=columns.device).unbind(-1)
    wrong = (columns < low) | (columns >= low + counts) | (columns != columns.round())
    if wrong.any():
        row, column = (int(i) for i in wrong.nonzero()[0])
        start, n = entry.categories[column]
        raise ValueError(
            f"{_named(entry)} must be integers from {start} to {start + n - 1} in element {column}, but row {row} has "
            f"{columns[row, column]:g}. Pass the numbers of the categories, not one-hot vectors, and the space that "
            "they were recorded in."
        )


def flatten_arrays(space: spaces.Space[Any], observations: Observations) -> Tensor:
    """Flat observations `[N, O]` of type `flat_dtype`, from arrays `[N, *shape]`; shares their memory if possible."""
    return flatten_tensors(space, tree_map(as_tensor, observations))


def as_tensor(array: Array) -> Tensor:
    """A tensor that shares the memory of the array, which may be a read-only memory map: never write to it."""
    contiguous = np.ascontiguousarray(array)
    if contiguous.flags.writeable:
        return torch.from_numpy(contiguous)
    with warnings.catch_warnings():  # Takes several times as long as the rest.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(contiguous)


def unflatten(space: spaces.Space[Any], flat: Tensor) -> Array | dict[str, Array]:
    """The observations, with the structure and shapes of the space, from flat observations `[N, O]`."""
    layout = observation_layout(space)
    columns = torch.split(flat.cpu(), [math.prod(entry.shape) for entry in layout], -1)
    arrays: list[Array] = [_unflattened(entry, part) for entry, part in zip(layout, columns, strict=True)]
    if layout[0].key is None:
        return arrays[0]
    return {str(entry.key): array for entry, array in zip(layout, arrays, strict=True)}


def _unflattened(entry: Entry, columns: Tensor) -> Array:
    array: Array = columns.reshape(-1, *entry.shape).numpy()
    if entry.image:
        return array.astype(np.uint8, copy=False)  # Beside vectors, pixels are stored as float32.
    return array.astype(np.int64) if entry.categories else array


def is_image_space(space: spaces.Space[Any]) -> bool:
    """Whether a space holds images: a uint8 Box of three axes with the bounds 0 and 255.

    This is the rule of `stable_baselines3.common.preprocessing.is_image_space`. Which of the axes holds the channels
    does not matter; see `has_channels_last`. Floats in [0, 1] are not images; see `may_be_float_images`.
    """
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) != 3:
        return False
    return bool((space.low == 0).all() and (space.high == 255).all())


def has_channels_last(space: spaces.Space[Any]) -> bool:
    """Whether a space holds images `[H, W, C]`: `is_image_space`, and the last axis is smaller than both others.

    Stable-Baselines3 decides likewise (the smallest axis holds the channels; the first one if two are equal), except
    where the middle axis is the smallest. It then transposes with a warning; here the channels stay first, as in a deep
    stack of small images `[48, 32, 32]`.
    """
    return is_image_space(space) and int(np.argmin(space.shape or ())) == 2


def channels_first_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The space with images `[C, H, W]` where `has_channels_last` finds images `[H, W, C]`; also inside a Dict.

    Stable-Baselines3's `VecTransposeImage` shows this space to a model. Keys of a Dict keep their order.
    """
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(key, channels_first_space(part)) for key, part in space.spaces.items()])
    if not has_channels_last(space):
        return space
    assert isinstance(space, spaces.Box)
    return spaces.Box(0, 255, (space.shape[2], *space.shape[:2]), np.uint8)


def check_channels_first(space: spaces.Space[Any]) -> None:
    """Raises a ValueError for images with their channels last, which says how to convert them."""
    if channels_first_space(space) != space:
        raise ValueError(
            f"images must have their channels first, but the observations are {space}. Wrap the environment in "
            "stable_baselines3.common.vec_env.VecTransposeImage, as models of Stable-Baselines3 do themselves, or pass "
            "flowpolicies.spaces.layout.channels_first_space(space)."
        )


def channels_first(space: spaces.Space[Any], observations: Observations) -> Observations:
    """Observations `[N, *shape]` of `space` as observations of `channels_first_space(space)`.

    Images with channels last are transposed without a copy, so the result is not contiguous; others stay as they are.
    """
    if isinstance(space, spaces.Dict) and isinstance(observations, Mapping):
        return {key: _channels_first(space[key], array) for key, array in observations.items()}
    assert not isinstance(observations, Mapping)
    return _channels_first(space, observations)


def _channels_first(space: spaces.Space[Any], array: Array) -> Array:
    return array.transpose(0, 3, 1, 2) if has_channels_last(space) else array


def may_be_float_images(space: spaces.Space[Any]) -> bool:
    """Whether a space may hold images as floats in [0, 1]: a Box of floats with three axes, one of them 1, 3 or 4 long.

    Networks take such observations as plain numbers. Data of this kind do not fit a model with images (`space_fits`):
    convert them by `(255 * images).round().astype("uint8")`, if their values are between 0 and 1.
    """
    is_float = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    shape = space.shape or ()
    return is_float and len(shape) == 3 and min(shape) in (1, 3, 4)


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
            f"the dataset's {part} does not match the model's: dataset {theirs}, model {own}. {_advice(own, theirs)}"
        )


def _advice(own: spaces.Space[Any], theirs: spaces.Space[Any]) -> str:
    pairs = [(own, theirs)]
    if isinstance(own, spaces.Dict) and isinstance(theirs, spaces.Dict):
        pairs = [(own[key], theirs[key]) for key in own.spaces if key in theirs.spaces]
    if any(is_image_space(mine) and may_be_float_images(other) for mine, other in pairs):
        return (
            "The dataset's images are floats and the model's are bytes. If the floats are between 0 and 1, convert "
            'them: (255 * images).round().astype("uint8").'
        )
    if any(has_channels_last(mine) != has_channels_last(other) for mine, other in pairs if is_image_space(other)):
        return (
            "The model's images have their channels first: transpose the dataset's, from [N, H, W, C] to [N, C, H, W]."
        )
    return "Use data of this environment, or wrap the environment so that both agree."


def space_fits(own: spaces.Space[Any], theirs: spaces.Space[Any]) -> bool:
    """Whether data of one space can be used in the other: equal keys, shapes and categories, and bounds that agree.

    Keys of a Dict may have any order. Two bounds agree if they are close to each other or one of them is infinite.
    Images fit only images, because other numbers have another scale. A Box that may have been inferred from data, with
    infinite bounds or bytes, fits Discrete, MultiDiscrete and MultiBinary spaces of its shape.
    """
    if isinstance(own, spaces.Dict) and isinstance(theirs, spaces.Dict):
        keys = own.spaces.keys()
        return keys == theirs.spaces.keys() and all(space_fits(own[key], theirs[key]) for key in keys)
    if not (isinstance(own, OBSERVABLE) and isinstance(theirs, OBSERVABLE)) or own.shape != theirs.shape:
        return False
    if isinstance(own, spaces.Box) and isinstance(theirs, spaces.Box):
        is_image = is_image_space(own)
        return is_image == is_image_space(theirs) and (is_image or _bounds_fit(own, theirs))
    for box in (own, theirs):
        if isinstance(box, spaces.Box):
            return _may_be_inferred(box)
    return type(own) is type(theirs) and categories_of(own) == categories_of(theirs)


def _may_be_inferred(box: spaces.Box) -> bool:
    is_unbounded = np.isinf(box.low).all() and np.isinf(box.high).all()
    return bool(is_unbounded or (box.dtype == np.uint8 and (box.low == 0).all() and (box.high == 255).all()))


def _bounds_fit(own: spaces.Box, theirs: spaces.Box) -> bool:
    pairs = ((own.low, theirs.low), (own.high, theirs.high))
    return all((np.isinf(mine) | np.isinf(other) | np.isclose(mine, other)).all() for mine, other in pairs)
