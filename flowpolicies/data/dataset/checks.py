"""Checks of offline data: each raises a DataFault that names the dataset and the field, and says what to do."""

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

from flowpolicies.artifacts import ArtifactError, reading
from flowpolicies.spaces.layout import OBSERVABLE, Observations, has_channels_last
from flowpolicies.tree import Array, leaves, named_leaves

BOUND_TOLERANCE = 1e-6
"""How far an action may lie outside its bounds, because float32 rounds; for bounds beyond 1 as a fraction of them."""


LOST = 1e-3
"""Rounding of float32, as a share of the range of a component, above which a warning says that differences are lost."""


class DataFault(ValueError):
    """The data themselves are wrong, and not the name or the options by which they were requested.

    If they come from a file, the error is a `FileFault`. A file that cannot be read at all, because it is damaged or is
    of another kind, is an `ArtifactError` and no DataFault.
    """


class FileFault(ArtifactError, DataFault):
    """The data in a file are wrong: an `ArtifactError`, because they come from outside, and a `DataFault`."""


@contextmanager
def reading_data(path: str | os.PathLike[str], hint: str = "") -> Iterator[None]:
    """Raises each `DataFault` of the block as a `FileFault`, and other errors as `flowpolicies.artifacts.reading` does.

    Args:
        path: the file or folder that the data come from.
        hint: what to do if the file cannot be read.
    """
    with reading(path, hint=hint):
        try:
            yield
        except ArtifactError:
            raise
        except DataFault as error:
            raise FileFault(path, str(error)) from error


def as_numbers(where: str, key: str, values: Any) -> Array:
    """The values as an array of float32; uint8 values stay uint8.

    A warning says so if float32 cannot hold the differences between the values.

    Args:
        where: the beginning of a message, such as "dataset 'arm': episode 3".
        key: the name of the values in a message.
        values: anything that NumPy can make an array of.

    Raises:
        DataFault: if the values are not numbers, or differ in shape from row to row.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataFault(f"{where}: {key} differ in shape from row to row ({error}).") from error
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataFault(f"{where}: {key} are a masked array, with {int(values.mask.sum())} masked values. Fill them.")
    check_numbers(where, key, array)
    if array.dtype == np.uint8:
        return array
    if array.dtype.itemsize > 4 and array.size and array.dtype.kind != "b":
        _check_range(where, key, array)
    return array.astype(np.float32, copy=False)


def _check_range(where: str, key: str, array: Array) -> None:
    """Checks that float32 holds the range of an array of a wider type, and warns if it rounds most of it away.

    Raises:
        DataFault: for finite numbers beyond the range of float32.
    """
    rows = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
    with np.errstate(invalid="ignore"):
        low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
        largest = np.maximum(np.abs(low), np.abs(high))
        beyond = np.flatnonzero(np.isfinite(largest) & (largest > np.finfo(np.float32).max))
        lost = np.flatnonzero((high > low) & np.isfinite(largest) & (2.0**-24 * largest > LOST * (high - low)))
    if len(beyond):
        raise DataFault(
            f"{where}: {key} reach {largest[beyond[0]]:.6g} in component {beyond[0]}, beyond the range of float32. "
            "Choose another unit."
        )
    if len(lost):
        first = lost[0]
        warnings.warn(
            f"{where}: {key} are stored as float32, which rounds most differences away in {len(lost)} components: "
            f"component {first} ranges from {low[first]:.12g} to {high[first]:.12g}. Subtract an offset, or choose "
            "another unit.",
            stacklevel=2,
        )


def check_numbers(where: str, key: str, array: Array) -> None:
    """Checks that an array holds numbers, since NumPy would also convert text such as "1.5".

    Raises:
        DataFault: if it holds text, objects or complex numbers.
    """
    if array.dtype.kind not in "biuf":
        raise DataFault(f"{where}: {key} are {array.dtype}, not numbers. Convert them to numbers first.")


def check_continuous(where: str, dtype: np.dtype[Any]) -> None:
    """Checks that actions whose space is not known are not indices or switches, judging by their type.

    Raises:
        DataFault: if the type is an integer or bool.
    """
    if dtype.kind in "biu":
        raise DataFault(
            f"{where}: actions are {dtype}, and look like discrete actions; flow policies act in continuous spaces. "
            "If they are continuous numbers, pass action_space=gymnasium.spaces.Box(low, high, shape), or convert them "
            "to float32."
        )


def as_flags(where: str, key: str, values: Any) -> npt.NDArray[np.bool_]:
    """The values as booleans, see `as_numbers` for the arguments.

    Raises:
        DataFault: if one of the values is neither 0 nor 1.
    """
    flags = as_numbers(where, key, values)
    rows = np.atleast_1d(flags)
    wrong = np.argwhere((rows != 0) & (rows != 1))
    if len(wrong):
        first = f"row {wrong[0][0]} has" if flags.ndim else "are"
        raise DataFault(f"{where}: {key} must be 0 or 1, but {first} {rows[tuple(wrong[0])]:.6g}.")
    return flags.astype(bool)


def check_lengths(name: str, arrays: Mapping[str, Array]) -> None:
    """Checks that all arrays have one row per transition, and that there is at least one transition."""
    lengths = {key: len(array) if array.ndim else None for key, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise DataFault(
            f"dataset '{name}': the fields differ in length: {lengths}. All need one row per transition; an episode "
            "of T+1 observations has T transitions, observations[:-1] and next_observations[1:]."
        )
    if not next(iter(lengths.values())):
        raise DataFault(f"dataset '{name}' has no transitions. Check the filter or the path that it came from.")


def check_observations(name: str, key: str, observations: Observations, space: Space[Any]) -> None:
    """Checks that observations have the structure, shapes and types of their space."""
    parts = space.spaces if isinstance(space, Dict) else space
    if not all(isinstance(part, OBSERVABLE) for part in leaves(parts)):
        raise DataFault(
            f"dataset '{name}': observation_space is {space}; only Box, Discrete, MultiDiscrete, MultiBinary, and Dict "
            "of these, are supported. Encode other observations as numbers and pass a Box."
        )
    if any(has_channels_last(part) for part in leaves(parts)):
        raise DataFault(
            f"dataset '{name}': {key} are images with their channels last ({space}), and networks expect them first. "
            "Build the dataset with TransitionDataset.from_arrays, which transposes them and their space."
        )
    arrays, boxes = named_leaves(key, observations), named_leaves(key, parts)
    if arrays.keys() != boxes.keys():
        _refuse_structure(name, key, observations, space)
    for full_name, box in boxes.items():
        _check_array(name, full_name, arrays[full_name], box)


def _refuse_structure(name: str, key: str, observations: Observations, space: Space[Any]) -> None:
    given = sorted(observations) if isinstance(observations, Mapping) else None
    if isinstance(space, Dict):
        raise DataFault(
            f"dataset '{name}': {key} hold {given or 'one array'}, but observation_space has the keys "
            f"{sorted(space.spaces)}. Pass a dict with exactly these keys."
        )
    raise DataFault(
        f"dataset '{name}': {key} are a dict with the keys {given}, but observation_space is {space}. "
        "Pass a Dict space with these keys, or one array."
    )


def check_action_space(name: str, space: Space[Any]) -> None:
    """Checks that the action space is a Box of floating-point numbers with finite bounds."""
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
    """Checks that actions have the shape of the action space and lie inside its bounds."""
    _check_array(name, "actions", actions, space)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    slack = BOUND_TOLERANCE * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
    # Bounds are float32, like the actions: NumPy would copy all actions to float64 to compare them with float64.
    outside = (actions < (low - slack).astype(np.float32)) | (actions > (high + slack).astype(np.float32))
    if outside.any():
        rows = np.flatnonzero(outside.reshape(len(actions), -1).any(axis=1))
        raise DataFault(
            f"dataset '{name}': {len(rows)} of {len(actions)} actions lie outside the bounds of action_space (actions "
            f"range from {actions.min():.6g} to {actions.max():.6g}, bounds from {low.min():.6g} to {high.max():.6g}; "
            f"first in {place(rows[0], terminals)}). Pass the action_space= that these actions were made for, or clip "
            "them."
        )


def warn_if_clipped(where: str, actions: Array, space: Space[Any]) -> None:
    """Warns if actions lie outside the bounds to which they are to be clipped, which changes what was executed.

    Args:
        where: the beginning of a message, such as "dataset 'arm'".
        actions: `[N, *A]`, before they are clipped.
        space: the Box of the bounds.
    """
    if not isinstance(space, Box) or space.shape != actions.shape[1:]:
        return
    slack = BOUND_TOLERANCE * np.maximum(1.0, np.maximum(np.abs(space.low), np.abs(space.high)))
    outside = (actions < space.low - slack) | (actions > space.high + slack)
    if outside.any():
        rows = int(outside.reshape(len(actions), -1).any(axis=1).sum())
        warnings.warn(
            f"{where}: {rows:,} of {len(actions):,} actions lie outside the bounds of action_space, from "
            f"{actions.min():.6g} to {actions.max():.6g}, and are clipped.",
            stacklevel=3,
        )


def check_scalars(name: str, key: str, array: Array) -> None:
    """Checks that there is one float32 per transition."""
    if array.ndim != 1:
        raise DataFault(
            f"dataset '{name}': {key} have shape {array.shape}, expected ({len(array)},). "
            f"Pass {key}.reshape(-1) if there is one number per transition."
        )
    _check_float32(name, key, array)


def check_finite(name: str, key: str, array: Array, terminals: Array) -> None:
    """Checks that no value is NaN or infinite."""
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
    """Checks that all values are 0 or 1."""
    wrong = np.flatnonzero((array != 0) & (array != 1))
    if len(wrong):
        raise DataFault(
            f"dataset '{name}': {key} must be 0 or 1, but {len(wrong)} of {len(array)} are not, first "
            f"{array[wrong[0]]:.6g} in {place(wrong[0], terminals)}. {_FLAG_MEANING[key]}"
        )


def place(row: int, terminals: Array | None) -> str:
    """The transition in a row, for messages: its row, episode and step of the episode, all counted from 0."""
    if terminals is None:
        return f"row {row}"
    earlier = np.flatnonzero(terminals[:row] == 1)
    step = row - (earlier[-1] + 1 if len(earlier) else 0)
    return f"row {row} (episode {len(earlier)}, step {step})"


def check_last_terminal(name: str, terminals: Array) -> None:
    """Checks that the last transition ends a trajectory."""
    if terminals[-1] != 1:
        raise DataFault(
            f"dataset '{name}': the last transition must end its trajectory, but terminals[-1] is 0. "
            "Set it to 1, or build the dataset with TransitionDataset.from_arrays, which sets it."
        )


def check_finals(name: str, ends: npt.NDArray[np.intp] | None, terminals: Array) -> None:
    """Checks that the trajectories for which compact next observations were made are those of the dataset.

    Args:
        name: the name of the dataset.
        ends: last rows of the trajectories of compact next observations, or None if the dataset is not compact.
        terminals: the flags of the dataset.
    """
    if ends is not None and not np.array_equal(ends, np.flatnonzero(terminals)):
        raise DataFault(
            f"dataset '{name}': its compact next observations belong to {len(ends)} trajectories, and its terminals "
            f"end {int((terminals == 1).sum())}, or end them in other rows. Pass next_observations as an array "
            "(np.asarray) when you change terminals."
        )


def check_provenance(name: str, provenance: dict[str, Any]) -> None:
    """Checks that the provenance can be written as JSON."""
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
            "Bytes (uint8) need a uint8 space, and other numbers need a space of another type."
        )
    if isinstance(space, Discrete | MultiDiscrete | MultiBinary):
        if array.dtype.kind != "i":
            raise DataFault(
                f"dataset '{name}': {key} are {array.dtype}, expected the numbers of the categories of {space} as "
                "integers. Build the dataset with TransitionDataset.from_arrays, which converts."
            )
    elif array.dtype != np.uint8:
        _check_float32(name, key, array)


def _check_float32(name: str, key: str, array: Array) -> None:
    if array.dtype != np.float32:
        raise DataFault(
            f"dataset '{name}': {key} are {array.dtype}, expected float32. "
            "Build the dataset with TransitionDataset.from_arrays, which converts."
        )
