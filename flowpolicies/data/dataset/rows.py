"""Reading of rows from arrays in files, and the fingerprint of all rows.

Rows are read from the file by their position instead of through the memory map. Recent kernels map megabytes around
each page that is touched, so that a run that samples from all of a large dataset would soon have all of it mapped.
Reading by position uses memory only for the rows themselves; the system's page cache, which all processes share, still
holds what was read recently.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor

from flowpolicies.spaces.layout import Observations
from flowpolicies.tree import Array, leaf_at

BLOCK_BYTES = 1 << 24
"""Size of the blocks in which whole arrays are read: 16 MB."""


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
        self.file = os.open(str(array.filename), os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.file)

    def read(self, rows: Array, count: int = 1) -> Array:
        """`count` successive rows, starting at each of `rows` `[B]`, as an array `[B, count, *shape]`.

        Raises:
            OSError: if the file ends before a row.
        """
        found = np.empty((len(rows), count, *self.shape), self.dtype)
        size, view = count * self.row_bytes, found.reshape(-1).view(np.uint8).data
        starts = (self.offset + rows.astype(np.int64) * self.row_bytes).tolist()
        for i, start in enumerate(starts):
            if os.preadv(self.file, [view[i * size : (i + 1) * size]], start) != size:
                raise OSError(f"a data file ends before row {rows[i]}: it was changed while it was in use.")
        return found


@final
class FileColumn:
    """A column whose flat rows are read from a file, or from several files whose rows are concatenated.

    Args:
        parts: the memory-mapped arrays, `[N, *shape]` each.
        dtype: the type of the tensors that `take` returns.
        finish: converts the rows that were read, such as by scaling actions; None: they are used as they are.
    """

    def __init__(
        self, parts: Sequence[np.memmap[Any, Any]], dtype: torch.dtype, finish: Callable[[Array], Array] | None = None
    ) -> None:
        self.readers, self.dtype, self.finish = [RowReader(part) for part in parts], dtype, finish
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


def mapped_parts(arrays: Observations, keys: Sequence[str | None]) -> list[np.memmap[Any, Any]] | None:
    """The arrays in the order of `keys` if all of them are memory maps, which can be read by position; None otherwise.

    Args:
        arrays: observations, or another array.
        keys: keys of dict observations, or [None] for one array.
    """
    parts = [leaf_at(arrays, key) for key in keys]
    maps = [part for part in parts if isinstance(part, np.memmap) and part.flags.c_contiguous and part.filename]
    return maps if len(maps) == len(parts) else None


def release_pages(arrays: Sequence[Array]) -> None:
    """Unmaps the pages of memory-mapped arrays that this process has read; they stay in the system's page cache."""
    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)


def blocks(arrays: Iterable[Array]) -> list[slice]:
    """Slices of successive rows that together cover arrays of equal length, about `BLOCK_BYTES` each."""
    arrays = list(arrays)
    row_bytes = sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in arrays)
    size = max(1, BLOCK_BYTES // max(row_bytes, 1))
    return [slice(start, min(start + size, len(arrays[0]))) for start in range(0, len(arrays[0]), size)]


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
