"""Conversion of observations of any structure into arrays of a Box or of a flat Dict of Boxes.

Datasets and environments are converted alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast, final

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Space, Tuple

from flowpolicies.data.dataset.checks import check_numbers
from flowpolicies.tree import Array


class LeafSpace(NamedTuple):
    """One array of a nested observation."""

    path: tuple[str | int, ...]
    """Keys and indices of the array in the nested Dicts and Tuples."""
    space: Space[Any]
    """Space of the array before the conversion."""

    @property
    def key(self) -> str:
        """Key of the array in the flat Dict, such as `goal/position` or `1`; "" if the observation is one array."""
        return "/".join(map(str, self.path))


@final
class ObservationConverter:
    """Converts observations of a space into arrays of a Box or of a flat Dict of Boxes.

    Nested Dicts and Tuples become one Dict with the keys of `LeafSpace.key`. Numbers become float32, and Discrete
    becomes one-hot. Bytes stay bytes, and images `[H, W, C]` become `[C, H, W]`, as Stable-Baselines3 wants them.

    Args:
        space: Observation space before the conversion.
        name: Name of the dataset, for error messages.

    Raises:
        ValueError: if an array of the space cannot be converted to numbers, or two arrays would get the same key.
    """

    def __init__(self, space: Space[Any], name: str) -> None:
        self.leaves = list(_leaves(space))
        keys = [leaf.key for leaf in self.leaves]
        if len(set(keys)) != len(keys) or not keys:
            raise ValueError(f"'{name}': the observation space {space} gives the flat keys {keys}, which is ambiguous.")
        boxes: dict[str, Space[Any]] = {leaf.key: _box(leaf, name) for leaf in self.leaves}
        self.space = cast(Box | Dict, boxes[""] if "" in boxes else Dict(boxes))

    @property
    def converted(self) -> dict[str, str]:
        """Description of each conversion that changes the layout of an array, by its name in the dataset."""
        found = {}
        for leaf in self.leaves:
            name = f"observations/{leaf.key}" if leaf.key else "observations"
            if _is_channels_last(leaf.space):
                found[name] = f"images {list(leaf.space.shape or ())} were transposed to [C, H, W]"
            elif isinstance(leaf.space, Discrete):
                found[name] = f"{leaf.space} was encoded as one-hot"
        return found

    def batch(self, values: Any) -> dict[str, Array]:
        """Convert a sequence of T observations, stored with a leading axis, to arrays `[T, *shape]` by key."""
        return {leaf.key: _encode(leaf, _pick(values, leaf.path)) for leaf in self.leaves}

    def single(self, observation: Any) -> Array | dict[str, Array]:
        """Convert one observation to an element of `space`."""
        batched = {leaf.path: np.asarray(_pick(observation, leaf.path))[None] for leaf in self.leaves}
        arrays: dict[str, Array] = {leaf.key: _encode(leaf, batched[leaf.path])[0] for leaf in self.leaves}
        return arrays.get("", arrays)


def _leaves(space: Space[Any], path: tuple[str | int, ...] = ()) -> Iterator[LeafSpace]:
    if isinstance(space, Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(space, Tuple):
        for index, inner in enumerate(space.spaces):
            yield from _leaves(inner, (*path, index))
    else:
        yield LeafSpace(path, space)


def _pick(values: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        values = values[step]
    return values


def _box(leaf: LeafSpace, name: str) -> Box:
    space = leaf.space
    if isinstance(space, Box) and space.dtype == np.uint8:
        low, high = (
            np.moveaxis(bound, -1, 0) if _is_channels_last(space) else bound for bound in (space.low, space.high)
        )
        return Box(low, high, dtype=np.uint8)
    if isinstance(space, Box):
        # Bounds beyond the range of float32 become infinite.
        with np.errstate(over="ignore"):
            low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        return Box(low, high, dtype=np.float32)
    if isinstance(space, Discrete):
        return Box(0.0, 1.0, (int(space.n),), np.float32)
    if isinstance(space, MultiBinary):
        return Box(0.0, 1.0, space.shape, np.float32)
    which = f"observation '{leaf.key}'" if leaf.path else "the observation"
    raise ValueError(
        f"'{name}': {which} is {space}, which cannot be used. Box, Discrete (as one-hot), MultiBinary, and Dicts and "
        "Tuples of these are supported. Collect the data with another observation_space, or without this observation."
    )


def _encode(leaf: LeafSpace, values: Any) -> Array:
    which = f"observation '{leaf.key}'" if leaf.path else "observation"
    array: Array = np.asarray(values)
    check_numbers(which, "values", array)
    if isinstance(leaf.space, Discrete):
        indices = array.astype(np.int64).reshape(len(array)) - int(leaf.space.start)
        if ((indices < 0) | (indices >= leaf.space.n)).any():
            raise ValueError(f"{which} has values outside its space {leaf.space}")
        one_hot = np.zeros((len(indices), int(leaf.space.n)), np.float32)
        one_hot[np.arange(len(indices)), indices] = 1
        return one_hot
    if leaf.space.dtype == np.uint8:
        if array.dtype.kind == "f":
            raise ValueError(f"{which}: values are {array.dtype}, but those of its space are bytes (uint8)")
        images = array.astype(np.uint8, copy=False)
        return np.moveaxis(images, -1, 1) if _is_channels_last(leaf.space) and images.ndim == 4 else images
    return array.astype(np.float32, copy=False)


def _is_channels_last(space: Space[Any]) -> bool:
    """Whether a space has images with the channels last, that is whether the last of three axes is the shortest."""
    shape = space.shape or ()
    return space.dtype == np.uint8 and len(shape) == 3 and shape[2] < min(shape[:2])
