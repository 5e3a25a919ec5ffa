"""Opening of folders of memory-mapped datasets: the index and the files are checked before an array is used.

The fingerprint of a folder of up to `SMALL` bytes is computed anew and compared with the index each time. Of larger
folders the sizes and headers of all files are checked, and a checksum over blocks that are spread evenly over each
file, which `verify=True` replaces by the fingerprint.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from flowpolicies.artifacts import ArtifactError, parse_json, reading
from flowpolicies.data.dataset import checks
from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import fingerprint_of, read
from flowpolicies.data.names import INDEX as INDEX
from flowpolicies.data.reading.limits import MAX_TEXT
from flowpolicies.data.reading.npy import read_header
from flowpolicies.data.reading.spaces import read_space
from flowpolicies.spaces.layout import channels_first_space
from flowpolicies.tree import Array

FORMAT = 1
"""Version of the layout of folders."""

SMALL = 1 << 25
"""Bytes of a folder whose fingerprint is always verified: 32 MiB, which take about 0.1 s."""

_SAMPLES, _SAMPLE_BYTES = 16, 1 << 14
_WRITE_AGAIN = "Write the dataset again."
_STORED = {"observations", "actions", "rewards", "masks", "terminals", "episode_ends"}


def open_folder(path: Path, *, verify: bool) -> TransitionDataset:
    """The dataset in a folder that has an index.

    Args:
        path: the folder.
        verify: whether to verify the fingerprint of a folder of any size.

    Raises:
        ArtifactError: if the format is newer, the index is damaged, or files differ from it.
    """
    index = _read_index(path)
    arrays = _open_arrays(path, index)
    with checks.reading_data(path, _WRITE_AGAIN):
        space = read_space(index["observation_space"], path / INDEX, "observation_space")
        if channels_first_space(space) != space:
            raise ArtifactError(
                path,
                f"it was written by an older version and holds images with their channels last ({space}), which "
                "networks would misread",
                hint="Delete the folder, and write the dataset again from its source.",
            )
        dataset = TransitionDataset.trusted(
            arrays,
            observation_space=space,
            action_space=cast(Box, read_space(index["action_space"], path / INDEX, "action_space")),
            provenance={**index["provenance"], "shard_ends": index["shard_ends"]},
            fingerprint=index["fingerprint"],
            episode_ends=_episode_ends(path, arrays.pop("episode_ends"), index["rows"]),
        )
        _check_fields(dataset)
        if verify or sum(entry["bytes"] for entry in index["columns"].values()) <= SMALL:
            _verify(path, dataset)
        else:
            _verify_samples(path, index["columns"])
    return dataset


def sample_of(path: Path) -> str:
    """SHA-256 of blocks that are spread evenly over a file, from its first to its last byte, as 64 hexadecimal digits.

    They are 16 blocks of 16 KiB, or the whole file if it is smaller.
    """
    size, digest = path.stat().st_size, hashlib.sha256()
    with open(path, "rb") as file:
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(file.read())
        else:
            for number in range(_SAMPLES):
                file.seek(number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def open_array(folder: Path, name: str) -> Array:
    """The memory map of a file in a folder.

    Raises:
        ArtifactError: if it is not a .npy file in this folder, or has another size than its header says.
    """
    file = _inside(folder, name)
    with reading(file, hint=_WRITE_AGAIN):
        with open(file, "rb") as stream:
            header = read_header(stream, file)
        size = file.stat().st_size
        if header.fortran_order or header.offset + header.nbytes != size:
            raise ArtifactError(
                file,
                f"it has {size:,} bytes, and its header says {header.dtype} of shape {header.shape}, which are "
                f"{header.offset + header.nbytes:,} bytes row by row",
                hint=_WRITE_AGAIN,
            )
        return np.memmap(file, header.dtype, "r", header.offset, header.shape)


def _read_index(path: Path) -> dict[str, Any]:
    """The index of a folder, whose entries have the right types."""
    file = _inside(path, INDEX)
    if (size := file.stat().st_size) > MAX_TEXT:
        raise ArtifactError(file, f"it has {size:,} bytes; at most {MAX_TEXT:,} are read", hint=_WRITE_AGAIN)
    index = parse_json(file.read_bytes(), file)
    if isinstance(index, dict) and index.get("format", FORMAT) != FORMAT:
        raise ArtifactError(
            file, f"it has format {index['format']!r}, this version reads {FORMAT}", hint="Update flowpolicies."
        )
    if fault := _index_fault(index):
        raise ArtifactError(file, f"it is damaged: {fault}", hint=_WRITE_AGAIN)
    return cast(dict[str, Any], index)


def _index_fault(index: Any) -> str | None:
    """What is wrong with an index, without its files; None: nothing."""
    types = {"rows": int, "shard_ends": list, "columns": dict, "provenance": dict, "fingerprint": str}
    if not isinstance(index, dict) or "format" not in index:
        return "it is not the index of a dataset"
    for key, kind in {**types, "observation_space": dict, "action_space": dict}.items():
        if not isinstance(index.get(key), kind):
            return f"'{key}' is missing, or of another type"
    ends = [0, *index["shard_ends"]]
    if not all(isinstance(end, int) for end in ends) or sorted(set(ends)) != ends or ends[-1] != index["rows"]:
        return f"'shard_ends' do not ascend to the {index['rows']} rows"
    if not re.fullmatch("[0-9a-f]{64}", index["fingerprint"]):
        return "'fingerprint' is not a SHA-256"
    names = {key.partition("/")[0] for key in index["columns"]}
    wanted = _STORED | {"next_observations" if "next_observations" in names else "final_observations"}
    if names != wanted:
        return f"it has the columns {sorted(names)}, and a dataset {sorted(wanted)}"
    for key, entry in index["columns"].items():
        kinds = {"file": str, "shape": list, "dtype": str, "bytes": int}
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), kinds[name]) for name in kinds):
            return f"the entry of column '{key}' is damaged"
    return None


def _open_arrays(folder: Path, index: Mapping[str, Any]) -> dict[str, Array]:
    """The memory maps of all columns, which have the sizes, shapes and types that the index says."""
    arrays = {}
    for key, entry in index["columns"].items():
        file = _inside(folder, entry["file"])
        if (found := file.stat().st_size) != entry["bytes"]:
            raise ArtifactError(
                file,
                f"it has {found} bytes where the index says {entry['bytes']}: the dataset was damaged after it was "
                "written",
                hint=_WRITE_AGAIN,
            )
        array = arrays[key] = open_array(folder, entry["file"])
        if (list(array.shape), array.dtype.str) != (entry["shape"], entry["dtype"]):
            raise ArtifactError(
                file,
                f"it holds {array.dtype.str} of shape {list(array.shape)}, and the index says {entry['dtype']!r} of "
                f"shape {entry['shape']}",
                hint=_WRITE_AGAIN,
            )
        if key.partition("/")[0] not in ("episode_ends", "final_observations") and array.shape[:1] != (index["rows"],):
            raise ArtifactError(file, f"it has not the {index['rows']} rows of the index", hint=_WRITE_AGAIN)
    return arrays


def _inside(folder: Path, name: str) -> Path:
    """The path of a file in a folder, which must not lead out of it."""
    file = folder / name
    if not name or name != os.path.basename(name) or "\\" in name or name in (".", "..") or not name.isprintable():
        raise ArtifactError(folder / INDEX, f"it names the file {name[:80]!r}, which is not in its folder")
    with reading(folder / INDEX, f"file {name[:80]!r}"):
        is_file = file.is_file()
    if not is_file:
        raise ArtifactError(
            file,
            "it has no file: the dataset was damaged after it was written" if not file.exists() else "it is not a file",
            hint=_WRITE_AGAIN,
        )
    if file.resolve().parent != folder.resolve():
        raise ArtifactError(file, f"it is a link to '{file.resolve()}', which is not in the folder of the dataset")
    return file


def _episode_ends(path: Path, stored: Array, rows: int) -> npt.NDArray[np.intp]:
    ends = np.asarray(read(stored, slice(None)))
    if ends.dtype != np.int64 or ends.ndim != 1 or len(ends) == 0 or ends[0] < 0 or ends[-1] != rows - 1:
        raise ArtifactError(path, f"episode_ends do not end at the last of {rows} rows", hint=_WRITE_AGAIN)
    if np.any(np.diff(ends) <= 0):
        raise ArtifactError(path, "episode_ends do not ascend", hint=_WRITE_AGAIN)
    return ends


def _check_fields(dataset: TransitionDataset) -> None:
    """Checks the shapes and types of all arrays; their values were checked when they were written."""
    name = dataset.name
    checks.check_action_space(name, dataset.action_space)
    for key in ("observations", "next_observations"):
        checks.check_observations(name, key, getattr(dataset, key), dataset.observation_space)
    checks.check_observations(name, "actions", dataset.actions, dataset.action_space)
    for key in ("rewards", "masks", "terminals"):
        checks.check_scalars(name, key, getattr(dataset, key))
    checks.check_provenance(name, dataset.provenance)


def _verify(path: Path, dataset: TransitionDataset) -> None:
    """Reads all rows and compares their fingerprint with that of the index."""
    if (found := fingerprint_of(dataset.arrays())) != dataset.fingerprint:
        raise ArtifactError(
            path,
            f"its arrays have the fingerprint {found}, and the index says {dataset.fingerprint}: they were changed "
            "after they were written",
            hint=_WRITE_AGAIN,
        )
    if not np.array_equal(np.flatnonzero(read(dataset.terminals, slice(None))), dataset.episode_ends):
        raise ArtifactError(path, "episode_ends are not the rows where terminals are 1", hint=_WRITE_AGAIN)


def _verify_samples(path: Path, columns: Mapping[str, Mapping[str, Any]]) -> None:
    for entry in columns.values():
        # Older versions wrote no samples.
        if "sample" in entry and sample_of(path / entry["file"]) != entry["sample"]:
            raise ArtifactError(path / entry["file"], "its content was changed after it was written", hint=_WRITE_AGAIN)
