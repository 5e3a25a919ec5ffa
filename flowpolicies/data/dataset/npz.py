"""Files in NumPy's .npz format: any arrays by name, and datasets with their spaces and provenance."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from gymnasium.spaces import Box, Space

from flowpolicies.artifacts import ArtifactError, parse_json
from flowpolicies.data.dataset.checks import as_numbers, reading_data
from flowpolicies.data.dataset.compact import successors_of
from flowpolicies.data.dataset.conversion import masks_and_terminals, to_float32
from flowpolicies.data.dataset.rows import rows_per_block
from flowpolicies.data.downloads.files import existing_file
from flowpolicies.data.names import FILES
from flowpolicies.data.reading.archive import NpzArrays, open_npz
from flowpolicies.data.reading.limits import MAX_TEXT
from flowpolicies.data.reading.spaces import read_space
from flowpolicies.files import atomic_write
from flowpolicies.spaces.json import space_to_json
from flowpolicies.tree import Array, nested

_DESCRIPTION = "flowpolicies_dataset"  # Name of the array that holds the spaces and the provenance as JSON.
_FORMAT = 1
_WRITE_AGAIN = "Write it again with TransitionDataset.save."
_STORED = {"observations", "actions", "rewards", "masks", "terminals"}
_NEEDED = ["observations", "actions", "rewards", "next_observations"]
_FLAGS = ["terminations", "truncations", "masks", "terminals"]


def read_npz(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> dict[str, Array]:
    """All arrays of an .npz file by name.

    Args:
        path: the file.
        max_bytes: bytes that all arrays together may take in memory; None: the larger of 256 MiB and 100 times the size
            of the file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ArtifactError: if it is not an .npz file, is damaged, holds pickled objects, or takes more than `max_bytes`.
    """
    path = existing_file(path, FILES["npz"])
    with open_npz(path, max_bytes) as arrays:
        return dict(arrays)


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> Path:
    """Writes arrays without compression to exactly `path`, atomically, and returns the path.

    The folder is made if it is missing.

    Raises:
        ValueError: if an array holds Python objects, which could only be pickled.
    """
    path = Path(path).expanduser()
    if pickled := [key for key, array in arrays.items() if array.dtype.hasobject]:
        raise ValueError(f"cannot write '{path}': {pickled} hold Python objects. Convert them to numbers first.")
    members: dict[str, Any] = dict(arrays)
    with atomic_write(path) as file:
        np.savez(file, **members)
    return path


def write_dataset(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    observation_space: Space[Any],
    action_space: Box,
    provenance: Mapping[str, Any],
) -> Path:
    """Writes a dataset to exactly `path`, atomically, and returns the path.

    Args:
        path: the file.
        arrays: the arrays by name, as `TransitionDataset.stored` returns them.
        observation_space, action_space, provenance: see the fields of `TransitionDataset`.
    """
    description = {
        "format": _FORMAT,
        "observation_space": space_to_json(observation_space),
        "action_space": space_to_json(action_space),
        "provenance": provenance,
    }
    return write_npz(path, {**arrays, _DESCRIPTION: np.frombuffer(json.dumps(description).encode(), np.uint8)})


def read_dataset(
    path: str | os.PathLike[str], max_bytes: int | None = None, compact_as: str | None = None
) -> tuple[dict[str, Array], dict[str, Any] | None]:
    """The arrays of a file by name, and its spaces and provenance; None if another program wrote the file.

    Args:
        path, max_bytes: as for `read_npz`.
        compact_as: the name of the dataset, for messages, if its next observations are to be `Successors`, of which
            only one block is in memory at a time; None: they are read in full.

    Raises:
        FileNotFoundError: if the file does not exist.
        ArtifactError: if it is not an .npz file, or was changed after `write_dataset` wrote it.
        DataFault: if `compact_as` is given, and the next observations are not the observations of the next rows.
    """
    path = existing_file(path, FILES["npz"])
    with open_npz(path, max_bytes) as file:
        later = [key for key in file if compact_as is not None and key.partition("/")[0] == "next_observations"]
        arrays = {key: file[key] for key in file if key not in later}
        encoded = arrays.pop(_DESCRIPTION, None)
        described = None if encoded is None else _decode_description(path, encoded)
        if later:
            with reading_data(path):
                terminals = arrays.get("terminals") if described else _terminals(str(compact_as), arrays)
                for key in later:
                    arrays |= _observations(str(compact_as), file, key, arrays, terminals, convert=described is None)
    if described is None:
        return arrays, None
    names = {key.partition("/")[0] for key in arrays}
    wanted = _STORED | {"next_observations" if "next_observations" in names else "final_observations"}
    if names != wanted:
        raise ArtifactError(
            path,
            f"it holds {sorted(names)}, and a dataset {sorted(wanted)}: it was changed after it was written",
            hint=_WRITE_AGAIN,
        )
    return arrays, described


def _terminals(name: str, arrays: Mapping[str, Array]) -> Array | None:
    """The terminals `[N]` of a file that another program wrote; None if it has no flags."""
    flags = {key: to_float32(f"dataset '{name}'", key, arrays[key]) for key in _FLAGS if key in arrays}
    return masks_and_terminals(name, flags)[1] if any(map(len, flags.values())) else None


def _observations(
    name: str, file: NpzArrays, key: str, arrays: dict[str, Array], terminals: Array | None, *, convert: bool
) -> dict[str, Array]:
    """Observations and the next observations `key` of a file: `Successors`, or an array if they are not alike.

    Args:
        name: the name of the dataset, for messages.
        file: the open file.
        key: "next_observations", or "next_observations/KEY" for an entry of a dict.
        arrays: the arrays that were read.
        terminals: `[N]`, 1 on the last row of each trajectory; None if they are not known.
        convert: whether another program wrote the file, so that the observations may be of another type.
    """
    of_now = key.replace("next_observations", "observations", 1)
    if of_now not in arrays or terminals is None or not len(terminals) or not terminals[-1]:
        return {key: file[key]}  # The checks of the dataset say what is missing or wrong.
    if terminals.shape != arrays[of_now].shape[:1] or not file.like(key, arrays[of_now]):
        return {key: file[key]}
    if convert:
        arrays[of_now] = as_numbers(f"dataset '{name}'", of_now, arrays[of_now])
    now, ends = arrays[of_now], np.flatnonzero(terminals)
    following = (block.astype(now.dtype, copy=False) for block in file.in_blocks(key, rows_per_block([now])))
    return {key: cast(Array, successors_of(name, key, now, following, terminals, ends))}


def _decode_description(path: str | os.PathLike[str], encoded: Array) -> dict[str, Any]:
    place = "the description of its spaces and provenance"
    if encoded.nbytes > MAX_TEXT:
        raise ArtifactError(path, f"it has {encoded.nbytes:,} bytes; at most {MAX_TEXT:,} are read", place=place)
    description = parse_json(encoded.tobytes(), path, place)
    if not isinstance(description, dict) or not {"format", "observation_space", "action_space"} <= description.keys():
        raise ArtifactError(path, "it is damaged", place=place, hint=_WRITE_AGAIN)
    if (found := description["format"]) != _FORMAT:
        raise ArtifactError(
            path, f"it has format {found!r}, this version reads {_FORMAT}", place=place, hint="Update flowpolicies."
        )
    if not isinstance(description.get("provenance"), dict):
        raise ArtifactError(path, "its provenance is not an object", place=place, hint=_WRITE_AGAIN)
    return {
        "observation_space": read_space(description["observation_space"], path, "observation_space"),
        "action_space": read_space(description["action_space"], path, "action_space"),
        "provenance": description["provenance"],
    }


def arguments_of(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """The arguments of `TransitionDataset.from_arrays` from the arrays of a file that another program wrote.

    Raises:
        ArtifactError: if an array is missing.
    """
    fields = nested(arrays)
    missing = [key for key in _NEEDED if key not in fields]
    if set(missing) == {"rewards", "next_observations"} and "terminals" in fields:
        raise ArtifactError(
            path,
            "it looks like a file of OGBench, which holds no rewards: they depend on the task",
            hint="Load it by a task's name, such as ogbench:cube-single-play-singletask-task1-v0, with "
            f"data_dir='{Path(path).parent}'.",
        )
    if missing:
        raise ArtifactError(
            path,
            f"it lacks {missing} (it holds {sorted(fields)}). Needed are {_NEEDED}, and terminations "
            "(with truncations, if any) or masks and terminals",
        )
    return {key: fields[key] for key in (*_NEEDED, *_FLAGS) if key in fields}
