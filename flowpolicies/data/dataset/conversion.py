"""Conversion of what users pass to `TransitionDataset.from_arrays`, and spaces that are inferred from arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from gymnasium.spaces import Box, Dict, Space

from flowpolicies.data.dataset import checks
from flowpolicies.data.dataset.compact import Successors
from flowpolicies.spaces.layout import Observations
from flowpolicies.tree import Array, tree_map


def to_observations(where: str, key: str, observations: Any) -> Observations:
    """Observations as arrays of float32 or uint8; see `checks.as_numbers` for the arguments.

    `Successors`, the next observations of compact data, stay as they are.
    """
    if isinstance(observations, Mapping):
        return {str(part): _to_array(where, f"{key}/{part}", values) for part, values in observations.items()}
    return _to_array(where, key, observations)


def _to_array(where: str, key: str, values: Any) -> Array:
    return cast(Array, values) if isinstance(values, Successors) else checks.as_numbers(where, key, values)


def to_float32(where: str, key: str, values: Any) -> Array:
    """The values as float32; see `checks.as_numbers` for the arguments."""
    return checks.as_numbers(where, key, values).astype(np.float32, copy=False)


def masks_and_terminals(name: str, flags: Mapping[str, Array]) -> tuple[Array, Array]:
    """The masks and terminals of a dataset, `[N]` each, from flags in either of the two conventions.

    Args:
        name: the name of the dataset, for messages.
        flags: `[N]` float32 arrays: terminations, or terminations and truncations, or masks and terminals.

    Raises:
        DataFault: for another choice of flags, or if a flag is neither 0 nor 1.
    """
    if set(flags) not in ({"terminations"}, {"terminations", "truncations"}, {"masks", "terminals"}):
        raise checks.DataFault(
            f"dataset '{name}': say where trajectories end by terminations= (and truncations=, if time limits cut "
            f"episodes), or by masks= and terminals=; given: {', '.join(flags) or 'none of them'}."
        )
    checks.check_lengths(name, flags)
    for key, flag in flags.items():
        checks.check_scalars(name, key, flag)
    if "masks" in flags:
        masks, terminals = flags["masks"], flags["terminals"].copy()
    else:
        masks = 1 - flags["terminations"]
        terminals = np.maximum(flags["terminations"], flags.get("truncations", np.float32(0)))
    for key, flag in flags.items():
        checks.check_flags(name, key, flag, terminals)
    terminals[-1] = 1
    return masks, terminals


def infer_observation_space(observations: Observations) -> Space[Any]:
    """The space of observations of which only the arrays are known: unbounded, or 0 to 255 for uint8."""
    boxes = tree_map(_infer_box, observations)
    return Dict(boxes) if isinstance(boxes, dict) else boxes


def _infer_box(array: Array) -> Space[Any]:
    if array.dtype == np.uint8:
        return Box(0, 255, shape=array.shape[1:], dtype=np.uint8)
    return Box(-np.inf, np.inf, shape=array.shape[1:], dtype=np.float32)


def infer_action_space(name: str, actions: Array, terminals: Array) -> Box:
    """The space of actions of which only the array is known: [-1, 1] in each dimension.

    Raises:
        DataFault: if an action lies outside [-1, 1].
    """
    beyond = np.abs(actions) > 1 + checks.BOUND_TOLERANCE  # This is false for NaN, which `check_finite` reports.
    if beyond.any():
        row = int(np.flatnonzero(beyond.reshape(len(actions), -1).any(1))[0])
        raise checks.DataFault(
            f"dataset '{name}': actions range from {actions.min():.6g} to {actions.max():.6g}, so their bounds cannot "
            f"be guessed (first beyond [-1, 1] in {checks.place(row, terminals)}). Pass "
            "action_space=gymnasium.spaces.Box(low, high, shape)."
        )
    return Box(-1.0, 1.0, shape=actions.shape[1:], dtype=np.float32)
