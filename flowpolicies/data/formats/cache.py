"""`storage="memmap"`: data laid out as files once per machine, and opened by everybody afterwards."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from filelock import FileLock

from flowpolicies.data.dataset.compact import unpack
from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.formats.memmap import FORMAT, INDEX, open_memmap, write_memmap

Storage = Literal["ram", "memmap"]
"""ram: arrays in memory. memmap: files that all processes share, of any size."""

CACHE_DIR = Path("~/.cache/flowpolicies/memmap")
"""Where the files go; what is in there can be deleted at any time."""


def from_shards(
    identity: Mapping[str, Any],
    files: Sequence[Path],
    read: Callable[[Path], TransitionDataset],
    storage: Storage,
    cache_dir: str | os.PathLike[str] | None = None,
) -> TransitionDataset:
    """The dataset in one or several files, as arrays in memory or as a folder that is written the first time.

    A folder belongs to what its dataset was made of: `identity`, and paths, sizes and times of modification of
    `files`. If one of them changes, a new folder is written. Many processes may ask at once: one writes, the others
    wait. Only one file is in memory at a time.

    Args:
        identity: JSON data, among it `name`: all that decides what is read from the files.
        files: in order; a trajectory does not go on from one to the next.
        read: the dataset in a file.
        storage: which of the two.
        cache_dir: parent of the folder; None: `CACHE_DIR`.

    Raises:
        ValueError: for another storage, or as `read` does.
    """
    check_storage(storage)
    if storage == "ram":
        return read(files[0]) if len(files) == 1 else join([read(file) for file in files])
    folder = _folder(identity, files, Path(cache_dir or CACHE_DIR).expanduser())
    if not (folder / INDEX).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not (folder / INDEX).is_file():
                write_memmap(folder, map(read, files))
    return open_memmap(folder)


def check_storage(storage: str) -> None:
    """Raises a ValueError for an unknown storage."""
    if storage not in get_args(Storage):
        raise ValueError(f"unknown storage '{storage}' (known: {', '.join(get_args(Storage))}).")


def join(datasets: Sequence[TransitionDataset]) -> TransitionDataset:
    """One dataset of several, one after the other, with the provenance of the first.

    Raises:
        ValueError: if their spaces differ.
    """
    first = datasets[0]
    for number, other in enumerate(datasets):
        if (other.observation_space, other.action_space) != (first.observation_space, first.action_space):
            raise ValueError(
                f"dataset {number} ('{other.name}') has other spaces than the first; they cannot be joined."
            )
    compact = all(dataset.final_observations is not None for dataset in datasets)
    arrays = [dataset.stored() if compact else dataset.arrays() for dataset in datasets]
    return dataclasses.replace(
        first, **unpack({key: np.concatenate([part[key] for part in arrays]) for key in arrays[0]})
    )


def _folder(identity: Mapping[str, Any], files: Sequence[Path], cache_dir: Path) -> Path:
    status = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    described = json.dumps([FORMAT, identity, status], sort_keys=True)
    name = re.sub(r"[^\w.-]+", "-", str(identity["name"]).rpartition("/")[2])
    return cache_dir / f"{name}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
