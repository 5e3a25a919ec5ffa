"""Observations that a caller passes, brought into batches of the observation space, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from flowpolicies.spaces.layout import Entry, Observations, observation_layout
from flowpolicies.tree import Array


def as_batch(space: spaces.Space[Any], observation: Any) -> tuple[Observations, bool]:
    """A batch `[N, *shape]` of observations, and whether the caller passed a batch instead of one observation.

    As in Stable-Baselines3, images may also have their channels last.

    Raises:
        ValueError: if the observation has other keys or another shape than the space has, or if some values of a dict
            are batches and others are not.
    """
    layout = observation_layout(space)
    if not isinstance(space, spaces.Dict):
        if isinstance(observation, Mapping):
            raise ValueError(f"the observation has the keys {sorted(observation)}, but the space is {space}.")
        return _entry_batch("the observation", layout[0], observation)
    if not isinstance(observation, Mapping) or set(observation) != set(space.spaces):
        given = sorted(observation) if isinstance(observation, Mapping) else type(observation).__name__
        raise ValueError(f"the observation must be a dict with the keys {sorted(space.spaces)}, got {given}.")
    found = {str(e.key): _entry_batch(f"observation[{e.key!r}]", e, observation[e.key]) for e in layout}
    sizes = {key: len(batch) if is_batch else "one" for key, (batch, is_batch) in found.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"the values of the observation hold different numbers of observations: {sizes}.")
    return {key: batch for key, (batch, _) in found.items()}, "one" not in sizes.values()


def _entry_batch(name: str, entry: Entry, values: Any) -> tuple[Array, bool]:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, but its type is {array.dtype}.")
    layouts = [array]
    if entry.image and array.ndim in (3, 4):
        layouts.append(np.moveaxis(array, -1, -3))
    for candidate in layouts:
        if candidate.shape == entry.shape:
            return candidate[None], False
        if candidate.ndim > 0 and candidate.shape[1:] == entry.shape:
            return candidate, True
    batch = ", ".join(map(str, ("N", *entry.shape)))
    raise ValueError(
        f"{name} has the shape {array.shape}, but one observation has the shape {entry.shape} and a batch ({batch})."
    )
