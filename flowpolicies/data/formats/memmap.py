"""Datasets larger than memory: one folder of plain `.npy` files beside a JSON index, opened as memory maps.

    index.json            format, number of rows, ends of the shards, columns, spaces, provenance, fingerprint
    observations.npy      [N, *shape]; of a Dict space observations.KEY.npy for each key
    next_observations.npy, or of compact data final_observations.npy [E, *shape], the last state of each trajectory
    actions.npy, rewards.npy, masks.npy, terminals.npy
    episode_ends.npy      [E] int64, the last row of each trajectory

A folder appears whole or not at all, and never changes: every process that opens it shares the system's page cache.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast, final

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.fingerprint import fingerprint_of
from flowpolicies.data.dataset.rows import read
from flowpolicies.spaces.json import space_from_json, space_to_json

Array = npt.NDArray[Any]

FORMAT = 1
INDEX = "index.json"


def write_memmap(
    path: str | os.PathLike[str], shards: TransitionDataset | Iterable[TransitionDataset], *, overwrite: bool = False
) -> Path:
    """Writes datasets one after the other as one folder, and returns it; only one of them is in memory at a time.

    Args:
        path: the folder; its parent is made if it is missing.
        shards: one dataset, or several with equal spaces; a generator keeps memory at one of them. The folder is
            compact if the first one is.
        overwrite: replace a dataset that is there.

    Raises:
        FileExistsError: if there is something, and `overwrite` is off or it is no dataset.
        ValueError: if there is no shard, or the spaces of two differ; it names the shard.
    """
    path = Path(path).expanduser()
    if path.exists() and not (overwrite and (path / INDEX).is_file()):
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


def open_memmap(path: str | os.PathLike[str]) -> TransitionDataset:
    """The dataset in a folder of `write_memmap`, in milliseconds: what was checked when it was written is not read.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it is no dataset, of a newer format, or a file has another size than the index says.
    """
    path = Path(path).expanduser()
    if not (path / INDEX).is_file():
        raise FileNotFoundError(
            f"no dataset in '{path}': a folder with '{INDEX}' is needed, as flowpolicies.data.write_memmap leaves it."
        )
    try:
        index = json.loads((path / INDEX).read_text())
        if index["format"] == FORMAT:
            return _open(path, index)
        found = index["format"]
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"'{path / INDEX}' is damaged ({error!r}): write the dataset again.") from error
    raise ValueError(f"'{path}' has format {found}, this version reads {FORMAT}. Update flowpolicies.")


def _open(path: Path, index: Mapping[str, Any]) -> TransitionDataset:
    columns = {key: _open_column(path, key, column) for key, column in index["columns"].items()}
    ends = columns.pop("episode_ends")
    return TransitionDataset.trusted(
        columns,
        observation_space=space_from_json(index["observation_space"]),
        action_space=cast(Box, space_from_json(index["action_space"])),
        provenance={**index["provenance"], "shard_ends": index["shard_ends"]},
        fingerprint=index["fingerprint"],
        episode_ends=np.asarray(ends),
    )


def _open_column(path: Path, key: str, column: Mapping[str, Any]) -> Array:
    file = path / column["file"]
    found = file.stat().st_size if file.is_file() else None
    if found != column["bytes"]:
        raise ValueError(
            f"'{file}' has {'no file' if found is None else f'{found} bytes'} where the index says {column['bytes']}: "
            "the dataset was damaged after it was written. Write it again."
        )
    array: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    return array


@final
class _Column:
    """A `.npy` file that grows."""

    def __init__(self, folder: Path, key: str, like: Array) -> None:
        self.key, self.row_shape, self.dtype, self.rows = key, like.shape[1:], like.dtype, 0
        self.path = folder / f"{key.replace('/', '.')}.npy"
        self.file: BinaryIO = open(self.path, "wb")  # noqa: SIM115  # Closed by `close`.
        self._write_header()

    def _write_header(self) -> None:
        """NumPy pads headers so that one with more rows has the same length."""
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(self.file, {**header, "shape": (self.rows, *self.row_shape)})

    def append(self, array: Array) -> None:
        """Further rows."""
        self.file.write(np.ascontiguousarray(array).data)
        self.rows += len(array)

    def close(self) -> dict[str, Any]:
        """Puts the final number of rows into the file; returns its entry in the index."""
        self.file.seek(0)
        self._write_header()
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        size = self.path.stat().st_size
        return {"file": self.path.name, "shape": [self.rows, *self.row_shape], "dtype": self.dtype.str, "bytes": size}


@final
class _Writer:
    """The files of one dataset, while shards are appended."""

    def __init__(self, folder: Path, first: TransitionDataset) -> None:
        self.folder, self.provenance = folder, first.provenance
        self.spaces = {"observation_space": first.observation_space, "action_space": first.action_space}
        self.compact = first.final_observations is not None
        self.columns = {key: _Column(folder, key, array) for key, array in first.stored().items()}
        self.ends = _Column(folder, "episode_ends", np.zeros(0, np.int64))
        self.shard_ends: list[int] = []

    def append(self, shard: TransitionDataset) -> None:
        """The shard's rows; trajectories do not go on from one shard to the next."""
        for part, space in self.spaces.items():
            if getattr(shard, part) != space:
                raise ValueError(
                    f"shard {len(self.shard_ends)} ('{shard.name}') has the {part} {getattr(shard, part)}, the first "
                    f"one {space}. Shards of one dataset must have equal spaces."
                )
        before = self.columns["actions"].rows
        for key, array in (shard.compact().stored() if self.compact else shard.arrays()).items():
            self.columns[key].append(array)
        self.ends.append(shard.episode_ends.astype(np.int64) + before)
        self.shard_ends.append(before + len(shard))

    def close(self) -> None:
        """Completes the files, and writes the index last."""
        entries = {key: column.close() for key, column in self.columns.items()}
        index = {
            "format": FORMAT,
            "rows": self.columns["actions"].rows,
            "shard_ends": self.shard_ends,
            "columns": {**entries, "episode_ends": self.ends.close()},
            **{part: space_to_json(space) for part, space in self.spaces.items()},
            "provenance": self.provenance,
            "fingerprint": fingerprint_of(self._whole(entries).arrays()),
        }
        (self.folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _whole(self, entries: Mapping[str, Mapping[str, Any]]) -> TransitionDataset:
        """What was written, for its fingerprint."""
        columns = {key: _open_column(self.folder, key, entry) for key, entry in entries.items()}
        ends = np.flatnonzero(read(columns["terminals"], slice(None)))
        return TransitionDataset.trusted(
            columns,
            observation_space=self.spaces["observation_space"],
            action_space=cast(Box, self.spaces["action_space"]),
            provenance=self.provenance,
            fingerprint="",
            episode_ends=ends,
        )


def _write(folder: Path, shards: Iterable[TransitionDataset]) -> None:
    writer: _Writer | None = None
    for shard in shards:
        writer = writer or _Writer(folder, shard)
        writer.append(shard)
        del shard  # Else it would stay in memory while the next one is made.
    if writer is None:
        raise ValueError("there is no shard to write: give at least one dataset.")
    writer.close()
