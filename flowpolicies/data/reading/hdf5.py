"""The arrays of HDF5 files, whose links, storage and declared sizes are checked before memory is used."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np

from flowpolicies.artifacts import ArtifactError, reading
from flowpolicies.data.reading.limits import Budget
from flowpolicies.tree import Array

_DEPTH = 8
"""Greatest depth of groups in groups."""

_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
"""Filters by number: those of HDF5 and h5py themselves. For any other, HDF5 would load a library by its number."""

_DEFLATE = 1
_INFLATION = 1032
"""Greatest number of bytes that deflate stores in one."""

_WRITTEN_BY = "Files must hold plain arrays in the file itself, as h5py writes them."


@contextmanager
def open_hdf5(path: Path, max_bytes: int | None = None, size: int | None = None) -> Iterator[Hdf5Group]:
    """Opens an HDF5 file; each array is read when it is asked for.

    Args:
        path: an existing file.
        max_bytes: see `flowpolicies.data.reading.limits.Budget`.
        size: bytes of the dataset that the file belongs to; None: those of the file.

    Raises:
        ImportError: if h5py is not installed.
        ArtifactError: if it is not an HDF5 file, or is damaged.
        ValueError: if `max_bytes` is not a whole number of at least 1.
    """
    budget = Budget(path, max_bytes, size)
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"'{path}' is read by h5py ({error}). Install it: pip install \"flowpolicies[hdf5]\""
        ) from error
    with reading(path):
        is_hdf5 = h5py.is_hdf5(path)
    if not is_hdf5:
        raise ArtifactError(path, "it is not an HDF5 file")
    with reading(path, hint="If it is only a part of the file, download it again."):
        file = h5py.File(path, "r")
    with file:
        yield Hdf5Group(budget, file, "")


@final
class Hdf5Group:
    """A group of an open file: arrays and groups by name.

    Args:
        budget: the bytes that may be read, and the path of the file.
        group: h5py's group.
        place: the names that lead to the group, joined by slashes.
    """

    def __init__(self, budget: Budget, group: Any, place: str) -> None:
        self._budget, self._group, self.place = budget, group, place
        if place.count("/") >= _DEPTH:
            raise self._error("", f"its groups are nested deeper than {_DEPTH} levels")

    def names(self) -> list[str]:
        """Names of what the group holds."""
        with reading(self._budget.path, self.place):
            return [str(name) for name in self._group]

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def group(self, name: str) -> Hdf5Group:
        """A group in this group.

        Raises:
            ArtifactError: if it is missing, is an array, or is a link.
        """
        node = self._node(name)
        if not hasattr(node, "items"):
            raise self._error(name, "it is not a group")
        return Hdf5Group(self._budget, node, self._place(name))

    def is_group(self, name: str) -> bool:
        """Whether something is a group, and not an array; see `group` for errors."""
        return hasattr(self._node(name), "items")

    def array(self, name: str) -> Array:
        """Reads an array of numbers, or of text of equal lengths.

        float64 becomes float32 while it is read, which needs half of the memory.

        Raises:
            ArtifactError: if it is missing, does not consist of numbers that are stored in the file, is damaged, or
                takes more bytes than allowed.
        """
        with self._numbers(name) as numbers:
            return np.asarray(numbers[()])

    def like(self, name: str, other: Array) -> bool:
        """Whether something is an array that is read with the shape and the type of another one.

        Raises:
            ArtifactError: as `array`.
        """
        if self.is_group(name) or self.shape(name) != other.shape:
            return False
        dtype = self._node(name).dtype
        return (np.dtype(np.float32) if dtype == np.float64 else dtype) == other.dtype

    def in_blocks(self, name: str, size: int) -> Iterator[Array]:
        """The rows of an array in blocks of `size` or more successive ones, of which one is in memory at a time.

        Raises:
            ArtifactError: as `array`.
        """
        with self._numbers(name) as numbers:
            chunk = getattr(self._node(name), "chunks", None) or (1,)
            size = -(-size // chunk[0]) * chunk[0]  # Otherwise the chunks at both ends of a block are unpacked twice.
            for start in range(0, len(self._node(name)), size):
                yield np.asarray(numbers[start : start + size])

    @contextmanager
    def _numbers(self, name: str) -> Iterator[Any]:
        """The rows of an array, which are read by indexing; float64 becomes float32."""
        node = self._node(name)
        if hasattr(node, "items"):
            raise self._error(name, "it is a group, not an array")
        with reading(self._budget.path, self._place(name), "If it is only a part of the file, download it again."):
            if node.dtype.kind not in "biufcS":
                raise self._error(name, f"it holds {node.dtype}, not numbers")
            self._check_storage(name, node)
            yield node.astype(np.float32) if node.dtype == np.float64 else node

    def byte_strings(self, name: str) -> Iterator[bytes]:
        """Reads the rows of an array `[R]` of byte arrays of any length, or of an array `[R, bytes]`, one at a time.

        Raises:
            ArtifactError: as `array`.
        """
        import h5py

        node = self._node(name)
        with reading(self._budget.path, self._place(name)):
            is_variable = h5py.check_vlen_dtype(node.dtype) == np.uint8 and node.ndim == 1
            if not is_variable and not (node.dtype == np.uint8 and node.ndim == 2):
                raise self._error(name, f"it holds {node.dtype} of shape {node.shape}, not encoded images")
            self._check_storage(name, node)
        for row in range(len(node)):
            with reading(self._budget.path, self._place(name)):
                found = np.asarray(node[row])
            if is_variable:
                self._budget.spend(found.nbytes, self._place(name))
            yield found.tobytes()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array; () for a group."""
        node = self._node(name)
        with reading(self._budget.path, self._place(name)):
            return () if hasattr(node, "items") else tuple(node.shape or ())

    def spend(self, name: str, count: int) -> None:
        """Counts bytes that the caller makes of an array, see `Budget.spend`."""
        self._budget.spend(count, self._place(name))

    def _node(self, name: str) -> Any:
        """The group or dataset of a name, if it is in this file."""
        import h5py

        with reading(self._budget.path, self._place(name)):
            if name not in self.names():
                raise self._error(name, "it is missing")
            kind = self._group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
            if kind != h5py.h5l.TYPE_HARD:
                raise self._error(name, "it is a link, which is not followed")
            node = self._group[name]
            if not isinstance(node, h5py.Group | h5py.Dataset):
                raise self._error(name, "it is neither a group nor an array")
            return node

    def _check_storage(self, name: str, node: Any) -> None:
        """Checks where and how an array is stored, and counts its bytes, rounded up to whole chunks."""
        import h5py

        layout = node.id.get_create_plist()
        if layout.get_external_count() or layout.get_layout() == h5py.h5d.VIRTUAL:
            raise self._error(name, "its numbers are stored in other files, which are not read")
        shape = tuple(node.shape or ())
        filters = [layout.get_filter(index)[0] for index in range(layout.get_nfilters())]
        unknown = [number for number in filters if number not in _FILTERS]
        if unknown or len(set(filters)) < len(filters):
            raise self._error(name, f"its filters are {filters}; known are {sorted(_FILTERS)}, each of them once")
        chunk = layout.get_chunk() if layout.get_layout() == h5py.h5d.CHUNKED else None
        padded = shape if chunk is None else [-(-size // part) * part for size, part in zip(shape, chunk, strict=True)]
        self._budget.spend(math.prod(padded) * node.dtype.itemsize, self._place(name))
        if chunk is not None and _DEFLATE in filters:
            self._check_chunks(name, node, math.prod(chunk) * node.dtype.itemsize)

    def _check_chunks(self, name: str, node: Any, size: int) -> None:
        """Checks that compressed chunks are not longer than declared, because HDF5 would unpack all of their bytes.

        Chunks that could not exceed what may be read are not unpacked for it.
        """
        if node.id.get_storage_size() * _INFLATION <= self._budget.allowed:
            return
        for index in range(node.id.get_num_chunks()):
            info = node.id.get_chunk_info(index)
            if info.size * _INFLATION > self._budget.allowed:
                stored = node.id.read_direct_chunk(info.chunk_offset)[1]
                # Filters after deflate, such as fletcher32, add a few bytes.
                if len(zlib.decompressobj().decompress(stored, size + 1024)) > size + 64:
                    raise self._error(name, f"a chunk of {size:,} bytes unpacks to more")

    def _place(self, name: str) -> str:
        return f"{self.place}/{name}" if self.place else name

    def _error(self, name: str, problem: str) -> ArtifactError:
        return ArtifactError(self._budget.path, problem, place=self._place(name), hint=_WRITTEN_BY)
