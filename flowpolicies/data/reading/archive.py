"""The arrays of .npz files, whose declared sizes are checked before memory is used."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np

from flowpolicies.artifacts import ArtifactError, reading
from flowpolicies.data.reading.limits import Budget
from flowpolicies.data.reading.npy import ArrayHeader, read_header
from flowpolicies.tree import Array

_WRITE_AGAIN = "Files must be complete and hold plain arrays, as numpy.savez writes them."
_NO_ARCHIVE = "it is not an .npz file, or only a part of one"
_MOST_MEMBERS = 100_000
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of archives with and without members."""


@contextmanager
def open_npz(path: Path, max_bytes: int | None = None) -> Iterator[NpzArrays]:
    """Opens an .npz file; each array is read when it is asked for.

    Args:
        path: an existing file.
        max_bytes: see `flowpolicies.data.reading.limits.Budget`.

    Raises:
        ArtifactError: if it is not an .npz file, or is damaged.
        ValueError: if `max_bytes` is not a whole number of at least 1.
    """
    budget = Budget(path, max_bytes)
    with open(path, "rb") as file:
        if file.read(4) not in _STARTS:
            raise ArtifactError(path, _NO_ARCHIVE, hint=_WRITE_AGAIN)
        with reading(path, hint=_WRITE_AGAIN):
            try:
                archive = zipfile.ZipFile(file)
            except zipfile.BadZipFile as error:
                raise ArtifactError(path, _NO_ARCHIVE, hint=_WRITE_AGAIN) from error
        with archive:
            yield NpzArrays(path, archive, budget)


@final
class NpzArrays(Mapping[str, Array]):
    """The arrays of an open .npz file by name.

    Args:
        path: the file, for messages.
        archive: the open file.
        budget: the bytes that may be read.

    Raises:
        ArtifactError: if the archive has members that are not arrays, or that cannot be told apart.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, budget: Budget) -> None:
        self.path, self._archive, self._budget = path, archive, budget
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._counted: set[str] = set()
        for member in archive.infolist():
            if fault := self._fault(member):
                raise ArtifactError(path, fault, place=f"member {member.filename[:80]!r}", hint=_WRITE_AGAIN)
            self._members[member.filename.removesuffix(".npy")] = member

    def _fault(self, member: zipfile.ZipInfo) -> str | None:
        """What is wrong with a member, as a sentence; None: nothing."""
        name = member.filename
        if not name.endswith(".npy") or name == ".npy":
            return "it is not an array (.npy)"
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/") or not name.isprintable():
            return "its name is a path"
        if name.removesuffix(".npy") in self._members:
            return "there are two members of this name"
        if len(self._members) >= _MOST_MEMBERS:
            return f"there are more than {_MOST_MEMBERS:,} members"
        if member.flag_bits & 1:
            return "it is encrypted"
        if member.compress_type not in _METHODS:
            return f"it is compressed by method {member.compress_type}; known are none (0) and deflate (8)"
        return None

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def check_all(self) -> None:
        """Unpacks all members once to compare their checksums, without keeping their numbers.

        Raises:
            ArtifactError: if a member is damaged, or they take more bytes than allowed.
        """
        for name, member in self._members.items():
            self._budget.spend(member.file_size, f"array '{name}'")
            with reading(self.path, f"array '{name}'", _WRITE_AGAIN), self._archive.open(member) as stream:
                while stream.read(1 << 20):
                    pass

    def __getitem__(self, name: str) -> Array:
        """Reads an array.

        Raises:
            KeyError: if there is no such array.
            ArtifactError: if it is damaged, or takes more bytes than allowed.
        """
        with self._open(name) as (stream, header):
            array: Array = np.empty(header.shape, header.dtype, "F" if header.fortran_order else "C")
            _fill(array, stream)
            _check_end(stream)
        return array

    def like(self, name: str, other: Array) -> bool:
        """Whether an array has the shape and the type of another one, and can be read in blocks of rows.

        Raises:
            KeyError, ArtifactError: as when the array is read.
        """
        with self._open(name) as (_, header):
            return (header.shape, header.dtype) == (other.shape, other.dtype) and not header.fortran_order

    def in_blocks(self, name: str, size: int) -> Iterator[Array]:
        """The rows of an array in blocks of `size` successive ones, of which one is in memory at a time.

        Raises:
            KeyError, ArtifactError: as when the array is read.
        """
        with self._open(name) as (stream, header):
            for start in range(0, header.shape[0], size):
                block: Array = np.empty((min(size, header.shape[0] - start), *header.shape[1:]), header.dtype)
                _fill(block, stream)
                yield block
            _check_end(stream)

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[Any, ArrayHeader]]:
        """The numbers of an array as a stream of bytes, and its header, whose bytes are counted."""
        member, place = self._members[name], f"array '{name}'"
        with reading(self.path, place, _WRITE_AGAIN), self._archive.open(member) as stream:
            header = read_header(stream, self.path, place)
            if header.offset + header.nbytes != member.file_size:
                raise ArtifactError(
                    self.path,
                    f"its header says {header.dtype} of shape {header.shape}, which are {header.nbytes:,} bytes, but "
                    f"{member.file_size - header.offset:,} are stored",
                    place=place,
                )
            if name not in self._counted:
                self._budget.spend(header.nbytes, place)
                self._counted.add(name)
            yield stream, header


def _fill(array: Array, stream: Any) -> None:
    """Reads the numbers of an array."""
    numbers: Any = np.ndarray(array.nbytes, np.uint8, array) if array.nbytes else b""
    view, done = memoryview(numbers), 0
    while done < len(view):
        count = stream.readinto(view[done : done + (1 << 20)])
        if not count:
            raise EOFError(f"it ends after {done:,} of {len(view):,} bytes")
        done += count


def _check_end(stream: Any) -> None:
    """Reads the end of the stream, where the checksum is compared."""
    if stream.read(1):
        raise ValueError("there are more bytes than declared")
