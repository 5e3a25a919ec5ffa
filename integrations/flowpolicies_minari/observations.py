"""Observations of any structure as a Box or a flat Dict of Boxes, the same for data and for environments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast, final

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Space, Tuple

from flowpolicies.data.dataset.checks import check_numbers

Array = npt.NDArray[Any]


class Part(NamedTuple):
    """One array in the structure of an observation."""

    path: tuple[str | int, ...]
    """Keys and indices that lead to it."""
    space: Space[Any]
    """Its space before conversion."""

    @property
    def key(self) -> str:
        """Its key in the flat Dict: `goal/position` of a nested Dict, `1` of a Tuple; "" if there is no structure."""
        return "/".join(map(str, self.path))


@final
class Observations:
    """How observations of a space become arrays of a Box or of a flat Dict of Boxes.

    Dicts and Tuples are flattened (`Part.key`), numbers become float32, Discrete becomes one-hot. Bytes stay bytes;
    images `[H, W, C]` become `[C, H, W]`, as Stable-Baselines3 makes them of environments.

    Raises:
        ValueError: if the space has parts that are no numbers, or two parts would get the same key.
    """

    def __init__(self, space: Space[Any], name: str) -> None:
        self.parts = list(_parts(space))
        keys = [part.key for part in self.parts]
        if len(set(keys)) != len(keys) or not keys:
            raise ValueError(f"'{name}': the observation space {space} gives the flat keys {keys}, which is ambiguous.")
        boxes: dict[str, Space[Any]] = {part.key: _box(part, name) for part in self.parts}
        self.space = cast(Box | Dict, boxes[""] if "" in boxes else Dict(boxes))

    def batch(self, values: Any) -> dict[str, Array]:
        """Arrays `[T, *shape]` by key, of observations whose every array has a leading axis."""
        return {part.key: _encode(part, _pick(values, part.path)) for part in self.parts}

    def single(self, observation: Any) -> Array | dict[str, Array]:
        """One observation, as it is in `space`."""
        batched = {part.path: np.asarray(_pick(observation, part.path))[None] for part in self.parts}
        arrays: dict[str, Array] = {part.key: _encode(part, batched[part.path])[0] for part in self.parts}
        return arrays.get("", arrays)


def _parts(space: Space[Any], path: tuple[str | int, ...] = ()) -> Iterator[Part]:
    if isinstance(space, Dict):
        for key, inner in space.spaces.items():
            yield from _parts(inner, (*path, key))
    elif isinstance(space, Tuple):
        for index, inner in enumerate(space.spaces):
            yield from _parts(inner, (*path, index))
    else:
        yield Part(path, space)


def _pick(values: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        values = values[step]
    return values


def _box(part: Part, name: str) -> Box:
    space = part.space
    if isinstance(space, Box) and space.dtype == np.uint8:
        low, high = (
            np.moveaxis(bound, -1, 0) if _is_channels_last(space) else bound for bound in (space.low, space.high)
        )
        return Box(low, high, dtype=np.uint8)
    if isinstance(space, Box):
        with np.errstate(over="ignore"):  # Bounds beyond float32 are none.
            low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        return Box(low, high, dtype=np.float32)
    if isinstance(space, Discrete):
        return Box(0.0, 1.0, (int(space.n),), np.float32)
    if isinstance(space, MultiBinary):
        return Box(0.0, 1.0, space.shape, np.float32)
    which = f"observation '{part.key}'" if part.path else "the observation"
    raise ValueError(
        f"'{name}': {which} is {space}, which cannot be used. Known are Box, Discrete (as one-hot), MultiBinary, and "
        "Dicts and Tuples of them. Collect the data with another observation_space, or leave this part out there."
    )


def _encode(part: Part, values: Any) -> Array:
    which = f"observation '{part.key}'" if part.path else "observation"
    array: Array = np.asarray(values)
    check_numbers(which, "values", array)
    if isinstance(part.space, Discrete):
        indices = array.astype(np.int64).reshape(len(array)) - int(part.space.start)
        if ((indices < 0) | (indices >= part.space.n)).any():
            raise ValueError(f"{which} leaves its space {part.space}")
        return np.eye(int(part.space.n), dtype=np.float32)[indices]
    if part.space.dtype == np.uint8:
        if array.dtype.kind == "f":
            raise ValueError(f"{which}: values are {array.dtype}, and those of its space are bytes (uint8)")
        images = array.astype(np.uint8, copy=False)
        return np.moveaxis(images, -1, 1) if _is_channels_last(part.space) and images.ndim == 4 else images
    return array.astype(np.float32, copy=False)


def _is_channels_last(space: Space[Any]) -> bool:
    """Whether these are images with their channels behind: the last of three axes is the shortest."""
    shape = space.shape or ()
    return space.dtype == np.uint8 and len(shape) == 3 and shape[2] < min(shape[:2])
