"""Rows of columns that lie in files.

They are read by position instead of through the memory map: recent kernels map megabytes around every page that is
touched, so a run that samples all of a large dataset would soon hold all of it. A read leaves nothing behind but its
rows; files that are warm stay in the system's page cache, which all processes share.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]

BLOCK_BYTES = 1 << 24


@final
class RowReader:
    """Reads rows of the file behind a memory map.

    Args:
        array: as `numpy.load(file, mmap_mode="r")` gives it, `[N, *shape]`.
    """

    def __init__(self, array: np.memmap[Any, Any]) -> None:
        self.shape, self.dtype, self.offset = array.shape[1:], array.dtype, int(array.offset)
        self.row_bytes = array.dtype.itemsize * math.prod(self.shape)
        self.file = os.open(str(array.filename), os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.file)

    def read(self, rows: Array, count: int = 1) -> Array:
        """`count` rows from each of `rows` `[B]` on, `[B, count, *shape]`."""
        found = np.empty((len(rows), count, *self.shape), self.dtype)
        size, view = count * self.row_bytes, found.reshape(-1).view(np.uint8).data
        starts = (self.offset + rows.astype(np.int64) * self.row_bytes).tolist()
        for i, start in enumerate(starts):
            if os.preadv(self.file, [view[i * size : (i + 1) * size]], start) != size:
                raise OSError(f"a data file ends before row {rows[i]}: it was changed while it was in use")
        return found


@final
class FileColumn:
    """A column of flat rows in one file, or side by side in several.

    Args:
        parts: the memory-mapped arrays, `[N, *shape]` each.
        dtype: of what is read.
        finish: from the arrays that were read to the column's units, such as the scaling of actions.
    """

    def __init__(
        self, parts: Sequence[np.memmap[Any, Any]], dtype: torch.dtype, finish: Callable[[Array], Array] | None = None
    ) -> None:
        self.readers, self.dtype, self.finish = [RowReader(part) for part in parts], dtype, finish
        self.width = sum(math.prod(reader.shape) for reader in self.readers)

    def take(self, rows: Array, count: int = 1) -> Tensor:
        """`count` rows from each of `rows` `[B]` on, `[B, count * width]`."""
        flat = []
        for reader in self.readers:
            read = reader.read(rows, count)
            stretched = read.reshape(len(rows) * count, *reader.shape)
            finished = stretched if self.finish is None else self.finish(stretched)
            flat.append(torch.from_numpy(finished.reshape(len(rows), count, -1)).to(self.dtype))
        return (flat[0] if len(flat) == 1 else torch.cat(flat, -1)).flatten(1)


def mapped_parts(arrays: Array | Mapping[str, Array], keys: Sequence[str | None]) -> list[np.memmap[Any, Any]] | None:
    """The arrays in the order of `keys`, if all of them are memory maps of whole files; else None."""
    parts = [arrays[key] if isinstance(arrays, Mapping) and key is not None else arrays for key in keys]
    maps = [part for part in parts if isinstance(part, np.memmap) and part.flags.c_contiguous and part.filename]
    return maps if len(maps) == len(parts) else None


def release_pages(arrays: Sequence[Array]) -> None:
    """Hands back what this process has touched of memory-mapped arrays; it stays in the page cache."""
    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)


def blocks(arrays: Iterable[Array]) -> list[slice]:
    """Slices that cover all rows of arrays of one length, of about 16 MB each."""
    arrays = list(arrays)
    row_bytes = sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in arrays)
    size = max(1, BLOCK_BYTES // max(row_bytes, 1))
    return [slice(start, min(start + size, len(arrays[0]))) for start in range(0, len(arrays[0]), size)]


def read(array: Array, where: slice | Array) -> Array:
    """Rows of an array, by a slice or by their numbers; of one in a file a copy, so that it does not stay in memory."""
    if not isinstance(array, np.memmap):
        return array[where]
    if not isinstance(where, slice) and isinstance(array.base, mmap.mmap):
        return RowReader(array).read(np.asarray(where))[:, 0]  # Through the map each row would bring in megabytes.
    rows = np.array(array[where])
    release_pages([array])
    return rows
