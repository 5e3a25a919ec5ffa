"""Observations of any layout and type as those of their space: images with channels first, bytes, category numbers.

What is converted is written into the provenance, under `converted`. A warning says so where the conversion is a guess.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

from flowpolicies.data.dataset.checks import DataFault
from flowpolicies.data.dataset.compact import Successors
from flowpolicies.data.dataset.rows import blocks, read
from flowpolicies.spaces.layout import Observations, channels_first_space, has_channels_last, is_image_space
from flowpolicies.tree import Array, named_leaves, nested

CONVERTED = "converted"
"""Key of a dataset's provenance for the conversions of its observations, by name."""

Pair = tuple[Array, Array]


def fit_observations(
    name: str, observations: Observations, next_observations: Observations, space: Space[Any], *, is_guess: bool
) -> tuple[Observations, Observations, Space[Any], dict[str, str]]:
    """Observations and next observations with the layout and types of their space.

    Images `[N, H, W, C]` become `[N, C, H, W]`, as Stable-Baselines3 shows them to models, and so does their space.
    Images that are floats in [0, 1], or whole numbers up to 255, become bytes if the space has bytes. Numbers of
    categories become integers. What does not fit its space in another way stays as it is, for the checks to refuse.

    Args:
        name: the name of the dataset, for messages.
        observations, next_observations: arrays, or dicts of arrays.
        space: the space of both.
        is_guess: whether the space was inferred from the arrays, so that a warning tells about transposed images.

    Returns:
        Both observations, their space, and the conversions by name of the observations.

    Raises:
        DataFault: if images cannot be converted to bytes, or a category is not one of its space.
    """
    fitting, done = channels_first_space(space), {}
    parts = fitting.spaces if isinstance(fitting, Dict) else fitting
    spaces: dict[str, Space[Any]] = named_leaves("observations", cast("Space[Any] | Mapping[str, Space[Any]]", parts))
    now, then = named_leaves("observations", observations), named_leaves("next_observations", next_observations)
    if now.keys() != spaces.keys() or len(then) != len(now) or _keys(observations) != _keys(next_observations):
        return observations, next_observations, fitting, {}
    for key, part in spaces.items():
        next_key = key.replace("observations", "next_observations", 1)
        (now[key], then[next_key]), notes = _fit(f"dataset '{name}': {key}", (now[key], then[next_key]), part)
        if notes:
            done[key] = "; ".join(notes)
        if notes and (is_guess or _SCALED in notes):
            warnings.warn(f"dataset '{name}': {key} were converted: {done[key]}.", stacklevel=3)
    return nested(now)["observations"], nested(then)["next_observations"], fitting, done


_SCALED = "floats from 0 to 1 were multiplied by 255 and rounded to bytes"
_BYTES = "whole numbers from 0 to 255 were stored as bytes"


def _fit(where: str, pair: Pair, space: Space[Any]) -> tuple[Pair, list[str]]:
    """A pair of observations and next observations that fits a space, and what was done to it."""
    if isinstance(space, Discrete | MultiDiscrete | MultiBinary):
        return _as_categories(where, pair, space), []
    notes = []
    shape = pair[0].shape[1:]
    if is_image_space(space) and len(shape) == 3 and shape != space.shape:
        last = (*space.shape[1:], space.shape[0]) if space.shape else ()
        if shape == last and has_channels_last(Box(0, 255, shape, np.uint8)):
            pair = _converted(_move_channels, pair)
            notes.append(f"images [{', '.join(map(str, shape))}] were transposed to [C, H, W]")
    if space.dtype == np.uint8 and pair[0].dtype != np.uint8:
        pair, note = _as_bytes(where, pair, is_image=is_image_space(space))
        notes.append(note)
    return pair, notes


def _converted(convert: Callable[[Array], Array], pair: Pair) -> Pair:
    """A pair of observations and next observations, each converted; compact next observations stay compact."""
    now, then = convert(pair[0]), pair[1]
    if isinstance(then, Successors) and then.observations is pair[0]:
        return now, cast(Array, Successors(now, convert(then.finals), then.ends))
    return now, convert(np.asarray(then))


def _move_channels(images: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(images, -1, 1))


def _to_bytes(images: Array) -> Array:
    return images.astype(np.uint8)


def _as_bytes(where: str, pair: Pair, *, is_image: bool) -> tuple[Pair, str]:
    low, high, is_whole = np.inf, -np.inf, True
    for array in pair:
        for rows in blocks([array]):
            values = read(array, rows)
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            is_whole = is_whole and bool((values == np.round(values)).all())
    if is_whole and low >= 0 and 1 < high <= 255:
        return _converted(_to_bytes, pair), _BYTES
    if is_image and low >= 0 and high <= 1:
        return _converted(_scaled, pair), _SCALED
    raise DataFault(
        f"{where} are {pair[0].dtype} from {low:.6g} to {high:.6g}, but their space is uint8, from 0 to 255. Images as "
        "floats from 0 to 1, and whole numbers from 0 to 255, are converted to bytes. Convert other numbers yourself, "
        "or pass the observation_space= that they were recorded in."
    )


def _scaled(images: Array) -> Array:
    bytes_of: Array = np.round(255 * np.asarray(images, np.float32)).astype(np.uint8)
    return bytes_of


def _as_categories(where: str, pair: Pair, space: Discrete | MultiDiscrete | MultiBinary) -> Pair:
    low: Any = 0
    high: Any = 1
    if isinstance(space, Discrete):
        low, high = int(space.start), int(space.start + space.n - 1)
    elif isinstance(space, MultiDiscrete):
        low, high = space.start, space.start + space.nvec - 1
    return _converted(lambda array: _category_numbers(where, array, space, low, high), pair)


def _category_numbers(where: str, array: Array, space: Space[Any], low: Any, high: Any) -> Array:
    values = np.asarray(array)
    if values.shape[1:] == (1,) and space.shape == ():  # A column of a table.
        values = values[:, 0]
    if values.shape[1:] != space.shape:
        hint = " Pass the numbers of the categories, not one-hot vectors." if space.shape == () else ""
        raise DataFault(
            f"{where} have shape {values.shape[1:]} per row, but their space {space} has shape {space.shape}.{hint}"
        )
    wrong = (values != np.round(values)) | (values < low) | (values > high)
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise DataFault(
            f"{where} must be whole numbers of {space}, but row {row} holds {values[row].tolist()}. Pass the "
            "observation_space= that they were recorded in."
        )
    return values.astype(np.int64, copy=False)


def _keys(tree: Observations) -> set[str] | None:
    return set(tree) if isinstance(tree, Mapping) else None
