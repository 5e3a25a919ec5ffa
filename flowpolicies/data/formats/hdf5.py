"""HDF5 files in D4RL's layout: one row per step, in the order of the steps, episode after episode.

observations  [R, *shape], or a group with one array for each key of a Dict space
actions       [R, *A]
rewards       [R]
terminals     [R], true where the episode ended in a terminal state
timeouts      [R], true where the episode was truncated
next_observations like observations, in some files only; infos/* and metadata/* are not read
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Space

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data.dataset.checks import (
    DataFault,
    as_flags,
    as_numbers,
    check_continuous,
    reading_data,
    warn_if_clipped,
)
from flowpolicies.data.dataset.compact import successors, successors_of
from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.episodes import Pairs, pair_rows
from flowpolicies.data.dataset.rows import blocks, rows_per_block
from flowpolicies.data.downloads.files import existing_file
from flowpolicies.data.names import FILES
from flowpolicies.data.reading.hdf5 import Hdf5Group, open_hdf5
from flowpolicies.messages import did_you_mean
from flowpolicies.spaces.layout import ACTION_MARGIN, clip_inside
from flowpolicies.tree import Array, leaves, named_leaves, take, tree_map

NextObservations = Literal["stored", "shifted"]
Terminals = Literal["ends", "inside"]

_NEEDED = ("observations", "actions", "rewards", "terminals")


def load_hdf5(
    path: str | os.PathLike[str],
    *,
    next_observations: NextObservations | None = None,
    terminals: Terminals = "ends",
    max_episode_steps: int | None = None,
    clip_actions: bool = False,
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    max_bytes: int | None = None,
    compact: bool = False,
) -> TransitionDataset:
    """The transitions in an HDF5 file in D4RL's layout.

    Everything that is read must be stored in the file itself: links, external storage and virtual datasets are refused.

    Args:
        path: the file.
        next_observations: "stored": those of the file. "shifted": the observation of the following row, as D4RL's
            `qlearning_dataset` does, whether or not the file has its own. The last row of an episode then has no next
            observation: it is dropped if the episode timed out or the file ends there, and keeps its own observation
            if the episode terminated, since learners do not bootstrap from it. None: "stored" if the file has next
            observations, "shifted" otherwise.
        terminals: "ends": a terminal state ends its trajectory. "inside": the trajectory continues until it times out,
            as in D4RL's mazes, where the ant stays at its goal. The mask is 0 in both cases.
        max_episode_steps: number of steps after which episodes time out, for a file without `timeouts`.
        clip_actions: whether to clip actions to slightly inside the bounds, as papers do for policies that squash
            their actions, see `flowpolicies.spaces.layout.clip_inside`.
        observation_space: space of the observations; None: unbounded.
        action_space: space of the actions; None: [-1, 1].
        name: the name of the dataset, for messages and summaries; None: the name of the file.
        provenance: further facts about the origin of the data, as JSON data.
        max_bytes: bytes that the arrays that are read may take in memory; None: the larger of 256 MiB and 100 times the
            size of the file.
        compact: store each state once, see `flowpolicies.data.dataset.compact`; not all next observations are held.

    Raises:
        FileNotFoundError: if the file does not exist.
        ArtifactError: if it is not a file in D4RL's layout, or something is wrong with the data.
        ValueError: if an option has a wrong value.
        ImportError: if h5py is not installed.
    """
    if next_observations not in (None, *get_args(NextObservations)):
        raise ValueError(f"unknown next_observations '{next_observations}' (known: stored, shifted).")
    if terminals not in get_args(Terminals):
        raise ValueError(f"unknown terminals '{terminals}' (known: ends, inside).")
    if max_episode_steps is not None and (
        isinstance(max_episode_steps, bool) or not isinstance(max_episode_steps, int)
    ):
        raise ValueError(f"max_episode_steps is {max_episode_steps!r}, and must be a whole number of steps.")
    path = existing_file(path, FILES["hdf5"])
    name = path.stem if name is None else name
    with open_hdf5(path, max_bytes) as file, reading_data(path):
        wanted = _wanted(path, file.names(), next_observations)
        arrays = {key: _tree(file, key) for key in wanted if not (compact and key == "next_observations")}
        arrays["rewards"] = _per_row(arrays["rewards"])
        arguments, known = _transitions(
            path,
            f"dataset '{name}'",
            arrays,
            is_default=next_observations is None,
            terminals=terminals,
            max_episode_steps=max_episode_steps,
            stored="next_observations" in wanted,
            compact=compact,
        )
        if "next_observations" not in arguments:
            arguments["next_observations"] = _stored_successors(file, name, arguments)
    with reading_data(path):
        if clip_actions:
            arguments["actions"] = _clip(f"dataset '{name}'", arguments["actions"], action_space)
            known["action_margin"] = ACTION_MARGIN
        dataset = TransitionDataset.from_arrays(
            **arguments,
            observation_space=observation_space,
            action_space=action_space,
            name=name,
            provenance={**known, **(provenance or {})},
        )
    return dataset.compact() if compact else dataset


def _transitions(
    path: Path,
    where: str,
    arrays: dict[str, Any],
    *,
    is_default: bool,
    terminals: Terminals,
    max_episode_steps: int | None,
    stored: bool,
    compact: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays as arguments of `TransitionDataset.from_arrays`, and the provenance of the rows.

    Args:
        path: the file.
        where: the beginning of messages.
        arrays: the arrays of the file.
        is_default: whether the user did not choose between stored and shifted next observations.
        terminals, max_episode_steps, compact: see `load_hdf5`.
        stored: whether the next observations are those of the file. They are missing in the result if they are not
            among the arrays.
    """
    terminated = _flags(where, "terminals", arrays.pop("terminals"))
    restarts = terminated if terminals == "ends" else np.zeros_like(terminated)
    timed_out = _timeouts(path, where, arrays.pop("timeouts", None), restarts, max_episode_steps)
    _check_rows(len(terminated), {**arrays, "timeouts": timed_out})
    ends = timed_out | terminated if terminals == "ends" else timed_out.copy()
    ends[-1:] = True
    if stored:
        masks, last = ~terminated, ends
    else:
        pairs = pair_rows(ends, terminated & ~timed_out)
        arrays |= _shifted(arrays, pairs, compact=compact)
        masks, last = ~terminated[pairs.rows], pairs.terminals
    known: dict[str, Any] = {"source": "hdf5", "file": path.name}
    known["next_observations"] = "stored" if stored else "shifted"
    if len(last) < len(ends):
        known["dropped_rows"] = len(ends) - len(last)
        if is_default:
            _warn_of_dropped(where, len(ends) - len(last), len(ends))
    return {**arrays, "masks": masks, "terminals": last}, {**known, "rows": len(ends)}


def _warn_of_dropped(where: str, dropped: int, rows: int) -> None:
    warnings.warn(
        f"{where}: {dropped:,} of {rows:,} rows were dropped, the last ones of truncated episodes, because the file "
        "does not hold the observation after them.",
        stacklevel=4,
    )


def _stored_successors(file: Hdf5Group, name: str, arguments: Mapping[str, Any]) -> Any:
    """The next observations of a file, of which one block is in memory at a time; in full if they differ in type.

    Args:
        file: the open file.
        name: the name of the dataset, for messages.
        arguments: the other arguments of `TransitionDataset.from_arrays`.
    """
    key, observations, terminals = "next_observations", arguments["observations"], arguments["terminals"]
    inner = file.group(key) if file.is_group(key) else None
    group, names = (file, [key]) if inner is None else (inner, inner.names())
    now = observations if isinstance(observations, Mapping) else {key: observations}
    if set(names) != set(now):
        return _tree(file, key)  # The checks of the dataset say what is wrong.
    ends, found = np.flatnonzero(terminals), {}
    for part, array in now.items():
        if _is_final(array) and group.like(part, array):
            rows = group.in_blocks(part, rows_per_block([array]))
            full_name = key if inner is None else f"{key}/{part}"
            found[part] = cast(Array, successors_of(name, full_name, array, rows, terminals, ends))
        else:
            found[part] = group.array(part)
    _check_rows(len(terminals), found)
    return found[key] if inner is None else found


def _is_final(array: Array) -> bool:
    """Whether a dataset stores an array in its own type."""
    return array.dtype in (np.float32, np.uint8)


def _shifted(arrays: dict[str, Any], pairs: Pairs, *, compact: bool) -> dict[str, Any]:
    """Observations, next observations, actions and rewards of the transitions in a table of steps."""
    found = {key: take(arrays[key], pairs.rows) for key in ("actions", "rewards")}
    observations = arrays["observations"]
    if not compact or not all(map(_is_final, leaves(observations))):
        following = take(observations, pairs.next_rows)
        return {**found, "observations": take(observations, pairs.rows), "next_observations": following}
    ends = np.flatnonzero(pairs.terminals)
    finals = take(observations, pairs.next_rows[ends])
    kept = tree_map(lambda array: _keep(array, pairs.rows), observations)
    return {**found, "observations": kept, "next_observations": successors(kept, finals, ends)}


def _keep(array: Array, rows: npt.NDArray[np.intp]) -> Array:
    """The rows `rows`, which ascend, moved to the beginning of an array: a copy would need the memory once more."""
    for block in blocks([array[: len(rows)]]):
        array[block] = array[rows[block]]
    return array[: len(rows)]


def _wanted(path: Path, found: list[str], next_observations: NextObservations | None) -> list[str]:
    needed = [*_NEEDED, *(["next_observations"] if next_observations == "stored" else [])]
    missing = [key for key in needed if key not in found]
    if missing:
        hint = did_you_mean(missing[0], found)
        if "episode_0" in found:
            hint = " It looks like the data of a Minari dataset: load that by its name, minari:NAME."
        raise ArtifactError(path, f"it lacks {missing} (it holds {sorted(found)[:50]})", hint=hint.strip())
    optional = ["timeouts", *(["next_observations"] if next_observations is None else [])]
    return [*needed, *(key for key in optional if key in found)]


def _tree(group: Hdf5Group, name: str) -> Any:
    """An array, or a group of arrays as a dict."""
    if not group.is_group(name):
        return group.array(name)
    inner = group.group(name)
    return {key: inner.array(key) for key in inner.names()}


def _timeouts(
    path: Path, where: str, stored: Any, restarts: npt.NDArray[np.bool_], max_episode_steps: int | None
) -> npt.NDArray[np.bool_]:
    """The rows where episodes were truncated, `[R]`.

    They are those of the file if it has them, or every `max_episode_steps` steps after the beginning of an episode.

    Args:
        path: the file.
        where: the beginning of messages.
        stored: the values of `timeouts` in the file, or None.
        restarts: `[R]`, true on rows that end an episode by terminating.
        max_episode_steps: see `load_hdf5`.
    """
    if stored is not None and max_episode_steps is not None:
        raise ArtifactError(path, "it says itself where episodes time out: load it without max_episode_steps")
    if stored is not None:
        return _flags(where, "timeouts", stored)
    if max_episode_steps is None or max_episode_steps < 1:
        raise ArtifactError(
            path,
            "it has no 'timeouts'",
            hint="Pass max_episode_steps=, the number of steps after which its episodes were cut short (on the command "
            "line hdf5:PATH,max_episode_steps=N); if all of them terminated, a number above their lengths.",
        )
    rows = np.arange(len(restarts))
    starts = np.maximum.accumulate(np.append(0, np.where(restarts, rows + 1, 0)[:-1]))
    return np.asarray((rows - starts) % max_episode_steps == max_episode_steps - 1)


def _flags(where: str, key: str, values: Any) -> npt.NDArray[np.bool_]:
    """The flags as booleans, `[R]`."""
    flags = as_flags(where, key, _per_row(values))
    if flags.ndim != 1:
        raise DataFault(f"{where}: {key} have shape {flags.shape}, expected one number per row.")
    return flags


def _per_row(values: Any) -> Any:
    """Values `[R]` of an array `[R, 1]`, as which some files of D4RL store them; other arrays as they are."""
    return values.reshape(-1) if np.ndim(values) == 2 and np.shape(values)[1] == 1 else values


def _clip(where: str, actions: Array, space: Space[Any] | None) -> Array:
    """Actions clipped to slightly inside the bounds of their space; None: [-1, 1]."""
    numbers = as_numbers(where, "actions", actions)
    if space is None:
        check_continuous(where, actions.dtype)
        space = Box(-1, 1, numbers.shape[1:], np.float32)
    warn_if_clipped(where, numbers, space)
    return clip_inside(numbers, space)


def _check_rows(rows: int, arrays: Mapping[str, Any]) -> None:
    flat = {name: array for key, tree in arrays.items() for name, array in named_leaves(key, tree).items()}
    wrong = {key: np.shape(array) for key, array in flat.items() if np.shape(array)[:1] != (rows,)}
    if wrong or rows == 0:
        raise DataFault(f"it has {rows} terminals, but these shapes: {wrong}. All need one row per step.")
