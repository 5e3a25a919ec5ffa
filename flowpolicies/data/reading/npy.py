"""Headers of NumPy's .npy format, read without Python's parser."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from flowpolicies.artifacts import ArtifactError, reading

_MAGIC = b"\x93NUMPY"
_LONGEST = 10_000
"""Greatest length of a header in bytes, as in NumPy. Headers of plain arrays have 128."""

_ITEMS = {
    "descr": re.compile(r"""['"]([<>|=]?(?:[?bBhHiIlLqQefd]|[biufcSUV]\d{1,9}|[mM]8(?:\[\w+\])?))['"]"""),
    "fortran_order": re.compile("(True|False)"),
    "shape": re.compile(r"\(((?:\s*\d{1,18}\s*,)*\s*(?:\d{1,18})?\s*)\)"),
}
_KEY = re.compile(r"""\s*['"](\w+)['"]\s*:\s*""")
_AFTER = re.compile(r"\s*(?:,|(?=\}))\s*")


class Stream(Protocol):
    """What headers are read from: a file, or a member of an archive."""

    def read(self, count: int, /) -> bytes:
        """The next bytes, fewer at the end."""
        ...


class ArrayHeader(NamedTuple):
    """What a .npy file says about its array."""

    dtype: np.dtype[Any]
    """Type of the numbers; never that of Python objects."""
    shape: tuple[int, ...]
    """Shape of the array."""
    fortran_order: bool
    """Whether the first index changes fastest."""
    offset: int
    """Bytes before the numbers."""

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return self.dtype.itemsize * math.prod(self.shape)


def read_header(stream: Stream, path: Path, place: str = "") -> ArrayHeader:
    """Reads the header of a .npy file, up to the first number.

    Args:
        stream: the file from its start.
        path: the file, for messages.
        place: the place in the file, for messages.

    Raises:
        ArtifactError: if it is not such a header, or it describes an array of Python objects or of records.
    """
    start = stream.read(len(_MAGIC) + 2)
    version = tuple(start[len(_MAGIC) :])
    if start[: len(_MAGIC)] != _MAGIC or version not in ((1, 0), (2, 0), (3, 0)):
        raise ArtifactError(path, "it is not an array in NumPy's .npy format", place=place)
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _LONGEST:
        raise ArtifactError(path, f"its header has {length:,} bytes; at most {_LONGEST:,} are read", place=place)
    encoded = stream.read(length)
    offset = len(start) + width + length
    with reading(path, place):
        found = _parse(encoded.decode("utf-8" if version == (3, 0) else "latin1"))
        if len(encoded) < length or found is None:
            raise ArtifactError(
                path,
                f"its header {encoded[:80]!r} is damaged, or describes something else than a plain array of numbers "
                "or text; pickled objects are never loaded",
                place=place,
            )
        shape = tuple(int(part) for part in found["shape"].split(",") if part.strip())
        return ArrayHeader(np.dtype(found["descr"]), shape, found["fortran_order"] == "True", offset)


def _parse(text: str) -> dict[str, str] | None:
    """The three items of a header as text; None if it is not a dictionary of exactly these."""
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    found: dict[str, str] = {}
    position = 1
    while text[position:].strip() != "}":
        key = _KEY.match(text, position)
        value = _ITEMS[key[1]].match(text, key.end()) if key and key[1] in _ITEMS and key[1] not in found else None
        after = _AFTER.match(text, value.end()) if value else None
        if key is None or value is None or after is None:
            return None
        found[key[1]], position = value[1], after.end()
    return found if len(found) == len(_ITEMS) else None
