"""Datasets larger than memory: folders of `.npy` files and a JSON index, which are opened as memory maps.

    index.json            format, number of rows, ends of the shards, files with checksums of a part of their bytes,
                          spaces, provenance, fingerprint
    observations.npy      [N, *shape]; for a Dict space observations.KEY.npy for each key
    next_observations.npy, or for compact data final_observations.npy [E, *shape], the last state of each trajectory
    actions.npy, rewards.npy, masks.npy, terminals.npy
    episode_ends.npy      [E] int64, the last row of each trajectory

A folder appears complete or not at all, and never changes. All processes that open it share the system's page cache.
`from_shards` keeps such folders in a cache, so that data of other formats are converted only once per machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast, final

import numpy as np
from filelock import FileLock
from gymnasium.spaces import Box

from flowpolicies.data.addresses import check_folder
from flowpolicies.data.dataset.compact import unpack
from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import fingerprint_of, read
from flowpolicies.data.downloads.files import expanded
from flowpolicies.data.formats.mapped import FORMAT as _FORMAT
from flowpolicies.data.formats.mapped import open_array, open_folder, sample_of
from flowpolicies.data.names import INDEX as _INDEX
from flowpolicies.data.names import Storage as Storage
from flowpolicies.data.names import check_storage
from flowpolicies.data.switches import as_switch
from flowpolicies.spaces.json import space_to_json
from flowpolicies.tree import Array

_NOT_OF_THE_DATA = ("trust", "max_bytes")
"""Options of built-in sources that decide whether a file is read, but not what is read."""

CACHE_DIR = Path("~/.cache/flowpolicies/memmap")
"""Default folder for the cache of `from_shards`; its contents can be deleted at any time."""


def write_memmap(
    path: str | os.PathLike[str], shards: TransitionDataset | Iterable[TransitionDataset], *, overwrite: bool = False
) -> Path:
    """Writes one dataset, or the rows of several datasets one after another, to a folder, and returns its path.

    Args:
        path: the folder; its parent is made if it is missing.
        shards: one dataset, or several with equal spaces. If they are an iterator that makes one dataset at a time,
            only one is in memory at a time. The folder is compact if the first dataset is.
        overwrite: replace a dataset that was written to the same folder.

    Raises:
        FileExistsError: if `path` exists, and `overwrite` is off or it is not a dataset.
        ValueError: if there is no dataset, or the spaces of two datasets differ.
    """
    path = Path(path).expanduser()
    if path.exists() and not (overwrite and (path / _INDEX).is_file()):
        raise FileExistsError(
            f"'{path}' exists already. Pass overwrite=True to replace a dataset that was written there, or another "
            "path."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        _write(temporary, [shards] if isinstance(shards, TransitionDataset) else shards)
        if path.exists():
            old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def open_memmap(path: str | os.PathLike[str], *, verify: bool = False) -> TransitionDataset:
    """The dataset in a folder that `write_memmap` wrote.

    It takes milliseconds: the sizes and headers of all files are checked, and checksums over a part of each file; the
    fingerprint only in folders of up to 32 MiB, see `flowpolicies.data.formats.mapped`. Values were checked when they
    were written and are not checked again. Only files in the folder itself are read.

    Args:
        path: the folder.
        verify: whether to read a folder of any size as a whole, to verify its fingerprint.

    Raises:
        FileNotFoundError: if the folder does not exist or is not a dataset.
        ArtifactError: if the format is newer, the index is damaged, or the files are not those of the index.
        ValueError: if `verify` is neither true nor false.
    """
    path = expanded(path)
    verify = as_switch("verify", verify)
    check_folder(path)
    return open_folder(path, verify=verify)


@final
class _GrowingArray:
    """A `.npy` file to which rows are appended.

    Args:
        folder: where the file is made.
        key: the name of the array.
        like: an array with the type and the shape of the rows.
    """

    def __init__(self, folder: Path, key: str, like: Array) -> None:
        self.row_shape, self.dtype, self.rows = like.shape[1:], like.dtype, 0
        self.path = folder / f"{key.replace('/', '.')}.npy"
        self.file: BinaryIO = open(self.path, "wb")  # noqa: SIM115  # Closed by `close`.
        self._write_header()

    def _write_header(self) -> None:
        """Writes the number of rows; NumPy pads headers, so the final one has the same length as the first one."""
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(self.file, {**header, "shape": (self.rows, *self.row_shape)})

    def append(self, array: Array) -> None:
        """Writes further rows."""
        self.file.write(np.ascontiguousarray(array).data)
        self.rows += len(array)

    def close(self) -> dict[str, Any]:
        """Writes the final number of rows, and returns the entry of the file in the index."""
        self.file.seek(0)
        self._write_header()
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        shape, size = [self.rows, *self.row_shape], self.path.stat().st_size
        described = {"file": self.path.name, "shape": shape, "dtype": self.dtype.str, "bytes": size}
        return {**described, "sample": sample_of(self.path)}


@final
class _ShardWriter:
    """The files of a dataset to which shards are appended.

    Args:
        folder: the folder of the dataset.
        first: the first shard, which determines the arrays and the provenance; it is not appended.
    """

    def __init__(self, folder: Path, first: TransitionDataset) -> None:
        self.folder, self.provenance = folder, first.provenance
        self.spaces = {"observation_space": first.observation_space, "action_space": first.action_space}
        self.compact = first.final_observations is not None
        self.arrays = {key: _GrowingArray(folder, key, array) for key, array in first.stored().items()}
        self.ends = _GrowingArray(folder, "episode_ends", np.zeros(0, np.int64))
        self.shard_ends: list[int] = []

    def append(self, shard: TransitionDataset) -> None:
        """Writes the rows of a shard; trajectories do not continue from one shard to the next."""
        for part, space in self.spaces.items():
            if getattr(shard, part) != space:
                raise ValueError(
                    f"shard {len(self.shard_ends)} ('{shard.name}') has the {part} {getattr(shard, part)}, the first "
                    f"one {space}. Shards of one dataset must have equal spaces."
                )
        before = self.arrays["actions"].rows
        for key, array in (shard.compact().stored() if self.compact else shard.arrays()).items():
            self.arrays[key].append(array)
        self.ends.append(shard.episode_ends.astype(np.int64) + before)
        self.shard_ends.append(before + len(shard))

    def close(self) -> None:
        """Completes the files, and writes the index last."""
        entries = {key: array.close() for key, array in self.arrays.items()}
        index = {
            "format": _FORMAT,
            "rows": self.arrays["actions"].rows,
            "shard_ends": self.shard_ends,
            "columns": {**entries, "episode_ends": self.ends.close()},
            **{part: space_to_json(space) for part, space in self.spaces.items()},
            "provenance": self.provenance,
            "fingerprint": fingerprint_of(self._whole(entries).arrays()),
        }
        (self.folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _whole(self, entries: Mapping[str, Mapping[str, Any]]) -> TransitionDataset:
        """The dataset that was written, whose fingerprint is yet to be computed."""
        arrays = {key: open_array(self.folder, entry["file"]) for key, entry in entries.items()}
        ends = np.flatnonzero(read(arrays["terminals"], slice(None)))
        return TransitionDataset.trusted(
            arrays,
            observation_space=self.spaces["observation_space"],
            action_space=cast(Box, self.spaces["action_space"]),
            provenance=self.provenance,
            fingerprint="",
            episode_ends=ends,
        )


def _write(folder: Path, shards: Iterable[TransitionDataset]) -> None:
    writer: _ShardWriter | None = None
    for shard in shards:
        writer = writer or _ShardWriter(folder, shard)
        writer.append(shard)
        del shard  # Otherwise it would stay in memory while the next one is made.
    if writer is None:
        raise ValueError("there is no shard to write: give at least one dataset.")
    writer.close()


def from_shards(
    identity: Mapping[str, Any],
    files: Sequence[Path],
    read_file: Callable[[Path], TransitionDataset],
    storage: Storage,
    cache_dir: str | os.PathLike[str] | None = None,
) -> TransitionDataset:
    """The dataset in one or several files, as arrays in memory or as a folder that is written once and opened later.

    The folder is named by what the dataset was made of: `identity`, and the paths, sizes and modification times of
    `files`. If one of them changes, a new folder is written. If many processes ask at once, one of them writes and the
    others wait. Only one of the files is in memory at a time.

    Args:
        identity: JSON data with everything that determines what is read from the files, including a `name`.
        files: the files in order; trajectories do not continue from one file to the next.
        read_file: returns the dataset in a file.
        storage: "ram" for arrays in memory, "memmap" for the folder.
        cache_dir: parent of the folder; None: `CACHE_DIR`.

    Raises:
        ValueError: if the storage is unknown, or as `read_file` does.
    """
    check_storage(storage)
    if storage == "ram":
        return read_file(files[0]) if len(files) == 1 else join([read_file(file) for file in files])
    folder = _cache_folder(identity, files, Path(cache_dir or CACHE_DIR).expanduser())
    if not (folder / _INDEX).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not (folder / _INDEX).is_file():
                write_memmap(folder, map(read_file, files))
    return open_memmap(folder)


def join(datasets: Sequence[TransitionDataset]) -> TransitionDataset:
    """One dataset with the rows of several, in order, and the provenance of the first.

    Raises:
        ValueError: if their spaces differ.
    """
    first = datasets[0]
    for number, other in enumerate(datasets):
        if (other.observation_space, other.action_space) != (first.observation_space, first.action_space):
            raise ValueError(
                f"dataset {number} ('{other.name}') has other spaces than the first; they cannot be joined."
            )
    are_compact = all(dataset.final_observations is not None for dataset in datasets)
    arrays = [dataset.stored() if are_compact else dataset.arrays() for dataset in datasets]
    return dataclasses.replace(
        first, **unpack({key: np.concatenate([part[key] for part in arrays]) for key in arrays[0]})
    )


def _cache_folder(identity: Mapping[str, Any], files: Sequence[Path], cache_dir: Path) -> Path:
    status = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    described = json.dumps([_FORMAT, identity, status], sort_keys=True)
    name = re.sub(r"[^\w.-]+", "-", str(identity["name"]).rpartition("/")[2])
    return cache_dir / f"{name}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"


def of_file(
    source: str,
    path: Path,
    load: Callable[..., TransitionDataset],
    options: Mapping[str, Any],
    cache_dir: str | os.PathLike[str] | None,
    *,
    compact: bool,
) -> TransitionDataset:
    """The dataset of one file as memory-mapped files, for a source without an option of its own for them.

    Args:
        source: name of the source.
        load: its function; `options` are passed to it.
    """
    described = {key: repr(value) for key, value in options.items() if key not in _NOT_OF_THE_DATA}
    identity = {"name": path.stem, "source": source, "options": described, "compact": compact}

    def load_one(file: Path) -> TransitionDataset:
        own = {"compact": compact} if "compact" in inspect.signature(load).parameters else {}
        dataset = load(str(file), **own, **options)
        return dataset.compact() if compact else dataset

    return from_shards(identity, [path], load_one, "memmap", cache_dir)
