"""Reading of rows from arrays in files, and the fingerprint of all rows.

Rows of an array of up to `MAPPED_BYTES` are read through its memory map. Rows of a larger one are read from the file by
their position, which takes two to five times as long: recent kernels map megabytes around each page that is touched, so
that a run that samples from all of a large dataset would soon have all of it mapped. Reading by position uses memory
only for the rows themselves. Either way the system's page cache, which all processes share, holds what was read
recently.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple, Protocol, TypeAlias, cast, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowpolicies.spaces.layout import Observations
from flowpolicies.tree import Array, leaf_at

Mapped: TypeAlias = "np.memmap[Any, Any] | SelectedRows"
"""An array in a file, or some of its rows."""

BLOCK_BYTES = 1 << 24
"""Size of the blocks in which whole arrays are read: 16 MB."""

MAPPED_BYTES = 1 << 30
"""Size of the largest array whose rows are read through its memory map: 1 GiB."""


class LazyArray(np.lib.mixins.NDArrayOperatorsMixin, ABC):
    """Base of arrays `[N, *shape]` whose rows are read or assembled when they are used; rows are indexed as in arrays.

    NumPy's functions receive a copy of the whole array. Subclasses set `shape` and `dtype`, and implement
    `_read`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the whole array in bytes."""
        return self.dtype.itemsize * math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        rows, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        if isinstance(rows, slice):
            numbers = np.arange(*rows.indices(len(self)))
        elif (given := np.asarray(rows)).dtype == bool:
            numbers = np.flatnonzero(given)
        else:
            numbers = np.where(given < 0, given + len(self), given)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < len(self)):
            raise IndexError(f"row {index} is out of bounds for {len(self)} transitions")
        found = self._read(numbers.reshape(-1)).reshape(*numbers.shape, *self.shape[1:])
        return found[(*[slice(None)] * numbers.ndim, *rest)] if rest else found

    @abstractmethod
    def _read(self, rows: Array) -> Array:
        """The rows `[B]` as a new array `[B, *shape]`."""

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        whole: Array = self[:]
        return whole.astype(dtype or self.dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [np.asarray(value) if isinstance(value, LazyArray) else value for value in inputs]
        return getattr(ufunc, method)(*arrays, **options)


@final
class SelectedRows(LazyArray):
    """Some rows of an array in a file: runs of successive rows, one run after another. No row is copied before its use.

    Args:
        base: `[M, *shape]`, a memory map.
        starts: `[E]`, the first row of each run in `base`.
        lengths: `[E]`, the number of rows of each run, at least 1.
    """

    def __init__(self, base: np.memmap[Any, Any], starts: Array, lengths: Array) -> None:
        self.base, self.starts, self.lengths = base, starts, lengths
        self.stops = np.cumsum(lengths)
        self.shape, self.dtype = (int(self.stops[-1]), *base.shape[1:]), base.dtype

    def rows_of_base(self, rows: Array) -> Array:
        """The rows of `base` for rows of this array, of the same shape."""
        run = np.searchsorted(self.stops, rows, side="right")
        wanted: Array = self.starts[run] + rows - (self.stops - self.lengths)[run]
        return wanted

    def _read(self, rows: Array) -> Array:
        wanted = self.rows_of_base(rows)
        cuts = np.flatnonzero(np.diff(wanted) != 1) + 1
        if 8 * len(cuts) >= len(wanted):
            return read(self.base, wanted)
        runs = [read(self.base, slice(part[0], part[-1] + 1)) for part in np.split(wanted, cuts)]
        return np.concatenate(runs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _select, (portable(self.base), self.starts, self.lengths)


def _select(base: Any, starts: Array, lengths: Array) -> SelectedRows:
    return SelectedRows(restored(base), starts, lengths)


def rows_of_runs(array: Array, starts: Array, lengths: Array) -> Array:
    """Runs of successive rows of an array: a copy of an array in memory, `SelectedRows` of one in a file.

    Args:
        array: `[M, *shape]`.
        starts: `[E]`, the first row of each run.
        lengths: `[E]`, the number of rows of each run.
    """
    if isinstance(array, SelectedRows):  # A run lies inside one of its runs, because both hold whole trajectories.
        return rows_of_runs(array.base, array.rows_of_base(starts), lengths)
    if isinstance(array, np.memmap):
        return cast(Array, SelectedRows(array, starts, lengths))
    before = np.cumsum(lengths) - lengths
    copied: Array = array[np.repeat(starts - before, lengths) + np.arange(lengths.sum())]
    return copied


class MappedFile(NamedTuple):
    """An array in a file, as it is pickled: the place of its numbers instead of the numbers."""

    path: str
    """Absolute path of the file."""
    dtype: str
    """Type of the array."""
    shape: tuple[int, ...]
    """Shape of the array."""
    offset: int
    """Position of the array in the file, in bytes."""


def portable(array: Any) -> Any:
    """What is pickled for an array: a `MappedFile` for a memory map, and the array itself for others."""
    if not isinstance(array, np.memmap) or not array.filename or not isinstance(array.base, mmap.mmap):
        return array
    return MappedFile(os.path.abspath(array.filename), array.dtype.str, array.shape, int(array.offset))


def restored(array: Any) -> Any:
    """The array of `portable`, opened again if it is in a file.

    Raises:
        FileNotFoundError: if the file was deleted or moved.
    """
    if not isinstance(array, MappedFile):
        return array
    if not os.path.isfile(array.path):
        raise FileNotFoundError(
            f"the dataset refers to the file '{array.path}', which does not exist any more. Load the dataset again, or "
            "copy it in memory (TransitionDataset.save) to take it to another machine."
        )
    return np.memmap(array.path, np.dtype(array.dtype), "r", array.offset, array.shape)


class LazyColumn(Protocol):
    """A column of flat rows that are read or composed when they are needed."""

    def take(self, rows: Array, count: int = 1) -> Tensor:
        """`count` successive rows, starting at each of `rows` `[B]`, as a tensor `[B, count * width]`."""


@final
class RowReader:
    """Reads rows of the file behind a memory map.

    Args:
        array: `[N, *shape]`, opened by `numpy.load(file, mmap_mode="r")`.
    """

    def __init__(self, array: np.memmap[Any, Any]) -> None:
        self.shape, self.dtype, self.offset = array.shape[1:], array.dtype, int(array.offset)
        self.row_bytes = array.dtype.itemsize * math.prod(self.shape)
        self.path, self.size = str(array.filename), self.offset + array.nbytes
        self.mapped = array.data.cast("B") if 0 < array.nbytes <= MAPPED_BYTES else None
        self.file = os.open(self.path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.file)

    def read(self, rows: Array, count: int = 1) -> Array:
        """`count` successive rows, starting at each of `rows` `[B]`, as an array `[B, count, *shape]`.

        Raises:
            OSError: if the file is shorter than it was when it was opened.
        """
        self._check_size()
        if self.mapped is None:
            found = self._read_by_position(rows, count)
        else:
            # All windows of the file as items that overlap: NumPy copies an item faster than a row of an array.
            windows = len(self.mapped) // self.row_bytes - count + 1
            item = np.dtype((np.void, count * self.row_bytes))
            found = np.ndarray(windows, item, self.mapped, strides=self.row_bytes)[rows].view(self.dtype)
        return found.reshape(len(rows), count, *self.shape)

    def _read_by_position(self, rows: Array, count: int) -> Array:
        starts = (self.offset + rows.astype(np.int64) * self.row_bytes).tolist()
        # The loop over the rows is one of C: a loop in Python takes twice as long.
        read = map(os.pread, repeat(self.file), repeat(count * self.row_bytes), starts)
        return np.frombuffer(bytearray().join(read), self.dtype)

    def _check_size(self) -> None:
        """Checks that the file has not become shorter: reading a page beyond its end would kill the process."""
        if (size := os.fstat(self.file).st_size) < self.size:
            raise OSError(
                f"the data file '{self.path}' has {size:,} of {self.size:,} bytes: it was changed while it was in use. "
                "Write the dataset again."
            )


@final
class SelectedReader:
    """Reads rows of `SelectedRows`, as `RowReader` does for a whole file."""

    def __init__(self, array: SelectedRows) -> None:
        self.array, self.reader = array, RowReader(array.base)
        self.shape = self.reader.shape

    def read(self, rows: Array, count: int = 1) -> Array:
        """See `RowReader.read`; a window may continue in the next run."""
        wanted = self.array.rows_of_base(rows[:, None] + np.arange(count))
        found = np.empty((len(rows), count, *self.shape), self.reader.dtype)
        whole = (np.diff(wanted, axis=1) == 1).all(axis=1)
        found[whole] = self.reader.read(wanted[whole, 0], count)
        if not whole.all():
            split = wanted[~whole]
            found[~whole] = self.reader.read(split.reshape(-1)).reshape(len(split), count, *self.shape)
        return found


@final
class FileColumn:
    """A column whose flat rows are read from a file, or from several files whose rows are concatenated.

    Args:
        parts: the memory-mapped arrays, or selected rows of them, `[N, *shape]` each.
        dtype: the type of the tensors that `take` returns.
        finish: converts the rows that were read, such as by scaling actions; None: they are used as they are.
    """

    def __init__(
        self, parts: Sequence[Mapped], dtype: torch.dtype, finish: Callable[[Array], Array] | None = None
    ) -> None:
        self.readers = [SelectedReader(part) if isinstance(part, SelectedRows) else RowReader(part) for part in parts]
        self.dtype, self.finish = dtype, finish
        self.width = sum(math.prod(reader.shape) for reader in self.readers)

    def take(self, rows: Array, count: int = 1) -> Tensor:
        """See `LazyColumn`."""
        flat = []
        for reader in self.readers:
            read = reader.read(rows, count)
            stretched = read.reshape(len(rows) * count, *reader.shape)
            finished = stretched if self.finish is None else self.finish(stretched)
            flat.append(torch.from_numpy(finished.reshape(len(rows), count, -1)).to(self.dtype))
        return (flat[0] if len(flat) == 1 else torch.cat(flat, -1)).flatten(1)


def mapped_parts(arrays: Observations, keys: Sequence[str | None]) -> list[Mapped] | None:
    """The arrays in the order of `keys` if all of them are memory maps, which can be read by position; None otherwise.

    Selected rows of a memory map count as one.

    Args:
        arrays: observations, or another array.
        keys: keys of dict observations, or [None] for one array.
    """
    parts: list[Any] = [leaf_at(arrays, key) for key in keys]
    return parts if all(map(_is_in_file, parts)) else None


def _is_in_file(array: Any) -> bool:
    whole = array.base if isinstance(array, SelectedRows) else array
    return isinstance(whole, np.memmap) and whole.flags.c_contiguous and bool(whole.filename)


def release_pages(arrays: Sequence[Array]) -> None:
    """Unmaps the pages of memory-mapped arrays that this process has read; they stay in the system's page cache."""
    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)


def blocks(arrays: Iterable[Array]) -> list[slice]:
    """Slices of successive rows that together cover arrays of equal length, about `BLOCK_BYTES` each."""
    arrays = list(arrays)
    size = rows_per_block(arrays)
    return [slice(start, min(start + size, len(arrays[0]))) for start in range(0, len(arrays[0]), size)]


def rows_per_block(arrays: Iterable[Array]) -> int:
    """Number of rows of arrays that together take about `BLOCK_BYTES`, at least 1."""
    row_bytes = sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in arrays)
    return max(1, BLOCK_BYTES // max(row_bytes, 1))


def read(array: Array, where: slice | Array) -> Array:
    """Rows of an array; rows of a file are copied, and its pages are not kept in memory.

    Args:
        array: `[N, *shape]`.
        where: a slice, or row numbers.
    """
    if not isinstance(array, np.memmap):
        return array[where]
    if not isinstance(where, slice) and isinstance(array.base, mmap.mmap):
        return RowReader(array).read(np.asarray(where))[:, 0]
    rows = np.array(array[where])
    release_pages([array])
    return rows


def fingerprint_of(arrays: Mapping[str, Array]) -> str:
    """SHA-256 of names, shapes, types and bytes of arrays, as 64 hexadecimal digits.

    Arrays may be in files: one block is in memory at a time.
    """
    digest = hashlib.sha256()
    for key, array in arrays.items():
        digest.update(f"{key} {array.shape} {array.dtype.str}\n".encode())
        for rows in blocks([array]):
            digest.update(np.ascontiguousarray(read(array, rows)).data)
    return digest.hexdigest()
