"""Checks of offline data: each raises a DataFault that names the dataset, the field, and the next move."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Space

Array = npt.NDArray[Any]

BOUND_TOLERANCE = 1e-6
"""How far an action may lie outside its bounds (relative to bounds beyond 1): what float32 rounding can do."""


class DataFault(ValueError):
    """Something is wrong with the data, and not with the name or the options that they were asked for by."""


def as_numbers(where: str, key: str, values: Any) -> Array:
    """The values as an array of float32, or of bytes (uint8) if that is what they are.

    Raises:
        DataFault: if they are no numbers, or differ in shape; it begins with `where`.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataFault(f"{where}: {key} differ in shape from row to row ({error}).") from error
    check_numbers(where, key, array)
    return array if array.dtype == np.uint8 else array.astype(np.float32, copy=False)


def check_numbers(where: str, key: str, array: Array) -> None:
    """No text, no objects: NumPy would read numbers out of the former."""
    if array.dtype.kind not in "biuf":
        raise DataFault(f"{where}: {key} are {array.dtype}, not numbers. Convert them to numbers first.")


def check_continuous(where: str, dtype: np.dtype[Any]) -> None:
    """Actions of this type, of which no space is known, are no indices or switches."""
    if dtype.kind in "biu":
        raise DataFault(
            f"{where}: actions are {dtype}, and look like discrete actions; flow policies act in continuous spaces. "
            "If they are continuous numbers, pass action_space=gymnasium.spaces.Box(low, high, shape), or convert them "
            "to float32."
        )


def as_flags(where: str, key: str, values: Any) -> npt.NDArray[np.bool_]:
    """The values as booleans.

    Raises:
        DataFault: if one of them is neither 0 nor 1; it begins with `where`.
    """
    flags = as_numbers(where, key, values)
    rows = np.atleast_1d(flags)
    wrong = np.argwhere((rows != 0) & (rows != 1))
    if len(wrong):
        place = f"row {wrong[0][0]} has" if flags.ndim else "are"
        raise DataFault(f"{where}: {key} must be 0 or 1, but {place} {rows[tuple(wrong[0])]:.6g}.")
    return flags.astype(bool)


def check_lengths(name: str, arrays: Mapping[str, Array]) -> None:
    """All arrays have one row per transition, and there is at least one."""
    lengths = {key: len(array) if array.ndim else None for key, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise DataFault(
            f"dataset '{name}': the fields differ in length: {lengths}. All need one row per transition; an episode "
            "of T+1 observations has T transitions, observations[:-1] and next_observations[1:]."
        )
    if not next(iter(lengths.values())):
        raise DataFault(f"dataset '{name}' has no transitions. Check the filter or the path that it came from.")


def check_observations(name: str, key: str, observations: Array | dict[str, Array], space: Space[Any]) -> None:
    """Observations have the structure, shape and type of their space."""
    if isinstance(space, Dict) and all(isinstance(part, Box) for part in space.spaces.values()):
        given = sorted(observations) if isinstance(observations, dict) else "one array"
        if given != sorted(space.spaces):
            raise DataFault(
                f"dataset '{name}': {key} hold {given}, but observation_space has the keys {sorted(space.spaces)}. "
                "Pass a dict with exactly these keys."
            )
        assert isinstance(observations, dict)
        for part, array in observations.items():
            _check_array(name, f"{key}/{part}", array, space.spaces[part])
    elif not isinstance(space, Box):
        raise DataFault(
            f"dataset '{name}': observation_space is {space}; only Box, and Dict of Box, are supported. "
            "Encode other observations as numbers (one-hot for Discrete) and pass a Box."
        )
    elif isinstance(observations, dict):
        raise DataFault(
            f"dataset '{name}': {key} are a dict with the keys {sorted(observations)}, but observation_space is "
            f"{space}. Pass a Dict space with these keys, or one array."
        )
    else:
        _check_array(name, key, observations, space)


def check_action_space(name: str, space: Space[Any]) -> None:
    """The action space is a Box of real numbers with finite bounds."""
    if not isinstance(space, Box) or not np.issubdtype(space.dtype, np.floating):
        raise DataFault(
            f"dataset '{name}': action_space is {space}; only Box spaces of floating-point actions are supported. "
            "Flow policies act in continuous spaces."
        )
    if not space.is_bounded("both"):
        raise DataFault(
            f"dataset '{name}': action_space {space} is unbounded; finite bounds are needed to scale actions to "
            "[-1, 1]. Pass action_space=gymnasium.spaces.Box(low, high, shape) with the range of the actions."
        )


def check_actions(name: str, actions: Array, space: Box, terminals: Array) -> None:
    """Actions have the shape of the action space and lie inside its bounds."""
    _check_array(name, "actions", actions, space)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    slack = BOUND_TOLERANCE * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
    # In float32, as the actions: a comparison with float64 would make a copy of them twice as large.
    outside = (actions < (low - slack).astype(np.float32)) | (actions > (high + slack).astype(np.float32))
    if outside.any():
        rows = np.flatnonzero(outside.reshape(len(actions), -1).any(axis=1))
        raise DataFault(
            f"dataset '{name}': {len(rows)} of {len(actions)} actions lie outside the bounds of action_space (actions "
            f"range from {actions.min():.6g} to {actions.max():.6g}, bounds from {low.min():.6g} to {high.max():.6g}; "
            f"first in {place(rows[0], terminals)}). Pass the action_space= that these actions were made for, or clip "
            "them."
        )


def check_scalars(name: str, key: str, array: Array) -> None:
    """One float32 per transition."""
    if array.ndim != 1:
        raise DataFault(
            f"dataset '{name}': {key} have shape {array.shape}, expected ({len(array)},). "
            f"Pass {key}.reshape(-1) if there is one number per transition."
        )
    _check_float32(name, key, array)


def check_finite(name: str, key: str, array: Array, terminals: Array) -> None:
    """No NaN, no infinity."""
    if array.dtype == np.uint8:
        return
    finite = np.isfinite(array)
    if not finite.all():
        rows = np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1))
        raise DataFault(
            f"dataset '{name}': {key} hold {int((~finite).sum())} values that are NaN or infinite, in {len(rows)} of "
            f"{len(array)} rows, first in {place(rows[0], terminals)}. Repair or drop the trajectories that contain "
            "them."
        )


def check_flags(name: str, key: str, array: Array, terminals: Array | None = None) -> None:
    """Only zeros and ones."""
    wrong = np.flatnonzero((array != 0) & (array != 1))
    if len(wrong):
        raise DataFault(
            f"dataset '{name}': {key} must be 0 or 1, but {len(wrong)} of {len(array)} are not, first "
            f"{array[wrong[0]]:.6g} in {place(wrong[0], terminals)}. {_FLAG_MEANING[key]}"
        )


def place(row: int, terminals: Array | None) -> str:
    """Which transition a row is, for messages: episodes, and steps inside them, are counted from 0 as rows are."""
    if terminals is None:
        return f"row {row}"
    earlier = np.flatnonzero(terminals[:row] == 1)
    step = row - (earlier[-1] + 1 if len(earlier) else 0)
    return f"row {row} (episode {len(earlier)}, step {step})"


def check_last_terminal(name: str, terminals: Array) -> None:
    """The last transition ends a trajectory."""
    if terminals[-1] != 1:
        raise DataFault(
            f"dataset '{name}': the last transition must end its trajectory, but terminals[-1] is 0. "
            "Set it to 1, or build the dataset with TransitionDataset.from_arrays, which does."
        )


def check_finals(name: str, ends: npt.NDArray[np.intp] | None, terminals: Array) -> None:
    """Next observations of compact data were put together for these trajectories."""
    if ends is not None and not np.array_equal(ends, np.flatnonzero(terminals)):
        raise DataFault(
            f"dataset '{name}': its compact next observations belong to {len(ends)} trajectories, and its terminals "
            f"end {int((terminals == 1).sum())}, or end them elsewhere. Give next_observations as an array "
            "(np.asarray) together with other terminals."
        )


def check_provenance(name: str, provenance: dict[str, Any]) -> None:
    """Provenance is JSON data."""
    try:
        json.dumps(provenance)
    except (TypeError, ValueError) as error:
        raise DataFault(
            f"dataset '{name}': provenance must be JSON data ({error}). Pass strings, numbers, lists and dicts."
        ) from error


_FLAG_MEANING = {
    "masks": "A mask is 1 - termination.",
    "terminals": "A terminal is 1 on the last transition of a trajectory.",
    "terminations": "A termination is 1 where the episode ended in a terminal state.",
    "truncations": "A truncation is 1 where the episode was cut short, by a time limit for example.",
}


def _check_array(name: str, key: str, array: Array, space: Space[Any]) -> None:
    if array.shape[1:] != space.shape:
        raise DataFault(
            f"dataset '{name}': {key} have shape {array.shape[1:]} per row, but their space has shape {space.shape}. "
            "Pass the space that they were recorded in, or reshape them."
        )
    if (array.dtype == np.uint8) != (space.dtype == np.uint8):
        raise DataFault(
            f"dataset '{name}': {key} are {array.dtype}, but their space is {space.dtype}. "
            "Bytes (uint8) need a uint8 space, and only they do."
        )
    if array.dtype != np.uint8:
        _check_float32(name, key, array)


def _check_float32(name: str, key: str, array: Array) -> None:
    if array.dtype != np.float32:
        raise DataFault(
            f"dataset '{name}': {key} are {array.dtype}, expected float32. "
            "Build the dataset with TransitionDataset.from_arrays, which converts."
        )
