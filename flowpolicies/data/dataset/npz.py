"""Files in NumPy's .npz format: any arrays by name, and datasets with their spaces and provenance."""

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space

from flowpolicies.data.downloads.files import existing_file
from flowpolicies.files import atomic_write
from flowpolicies.spaces.json import space_from_json, space_to_json
from flowpolicies.tree import Array, nested

_DESCRIPTION = "flowpolicies_dataset"  # Name of the array that holds the spaces and the provenance as JSON.
_FORMAT = 1
_STORED = {"observations", "actions", "rewards", "masks", "terminals"}
_NEEDED = ["observations", "actions", "rewards", "next_observations"]
_FLAGS = ["terminations", "truncations", "masks", "terminals"]


def read_npz(path: str | os.PathLike[str]) -> dict[str, Array]:
    """All arrays of an .npz file by name.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not an .npz file, is damaged, or holds pickled objects.
    """
    path = existing_file(path, "an .npz file")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"'{path}' is not an .npz file, or only a part of one. Write it again with np.savez.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(
            f"cannot read '{path}': {error}. Files must be complete and hold plain arrays: "
            "pickled objects are never loaded."
        ) from error


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


def read_dataset(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any] | None]:
    """The arrays of a file by name, and its spaces and provenance; None if another program wrote the file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not an .npz file, or was changed after `write_dataset` wrote it.
    """
    arrays = read_npz(path)
    encoded = arrays.pop(_DESCRIPTION, None)
    if encoded is None:
        return arrays, None
    described = _decode_description(path, encoded)
    names = {key.partition("/")[0] for key in arrays}
    wanted = _STORED | {"next_observations" if "next_observations" in names else "final_observations"}
    if names != wanted:
        raise ValueError(
            f"'{path}' holds {sorted(names)}, and a dataset {sorted(wanted)}: it was changed after it was written. "
            "Write it again with TransitionDataset.save."
        )
    return arrays, described


def _decode_description(path: str | os.PathLike[str], encoded: Array) -> dict[str, Any]:
    try:
        description = json.loads(encoded.tobytes())
        if description["format"] == _FORMAT:
            return {
                "observation_space": space_from_json(description["observation_space"]),
                "action_space": space_from_json(description["action_space"]),
                "provenance": description["provenance"],
            }
        found = description["format"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'{path}' has a damaged description of spaces and provenance ({error!r}). Write it again with "
            "TransitionDataset.save."
        ) from error
    raise ValueError(f"'{path}' has format {found}, this version reads {_FORMAT}. Update flowpolicies.")


def arguments_of(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """The arguments of `TransitionDataset.from_arrays` from the arrays of a file that another program wrote.

    Raises:
        ValueError: if an array is missing.
    """
    fields = nested(arrays)
    missing = [key for key in _NEEDED if key not in fields]
    if set(missing) == {"rewards", "next_observations"} and "terminals" in fields:
        raise ValueError(
            f"'{path}' looks like a file of OGBench, which holds no rewards: they depend on the task. Load it by a "
            f"task's name, such as ogbench:cube-single-play-singletask-task1-v0, with data_dir='{Path(path).parent}'."
        )
    if missing:
        raise ValueError(
            f"'{path}' lacks {missing} (it holds {sorted(fields)}). Needed are {_NEEDED}, and terminations "
            "(with truncations, if any) or masks and terminals."
        )
    return {key: fields[key] for key in (*_NEEDED, *_FLAGS) if key in fields}
