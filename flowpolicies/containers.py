"""The two kinds of files that hold policies, told apart by their content: safetensors files and zips.

A file is of a kind if its first bytes are, and if its parts cover the whole file, each byte once. A file that can also
be read as the other kind is refused, whatever its name is.
"""

from __future__ import annotations

import codecs
import io
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, final

from flowpolicies.artifacts import ArtifactError, parse_json, reading

MAX_HEADER = 4 << 20
"""Largest JSON header of a safetensors file, in bytes; those of policies have a few kB."""
MAX_RATIO, MAX_MEMBERS = 200, 1000
"""Largest ratio of the unpacked size of a zip to its size, and largest number of its members. Models are not
compressed; zips that were packed anew have ratios below 10."""
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes per number of the types in a safetensors file."""

codecs.lookup("cp437")  # Of names in zips: found now, so that nothing is imported while a file is read.
_LOCAL, _END, _END64 = struct.Struct("<4s5H3L2H"), struct.Struct("<4s4H2LH"), 76


@final
class Declared(NamedTuple):
    """What the header of a safetensors file says of a tensor."""

    dtype: str
    """Name of its type, as in `SIZES`."""
    shape: tuple[int, ...]
    """Sizes of its dimensions."""


@final
class Header(NamedTuple):
    """The header of a safetensors file."""

    metadata: dict[str, str]
    """Texts of the file's author, by name."""
    tensors: dict[str, Declared]
    """Type and shape of each tensor by its name, in the order of their data."""
    start: int
    """Offset of the data in the file, in bytes."""


def name_of(source: str | os.PathLike[str] | BinaryIO) -> str:
    """How messages call a file: its path, or the file object."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"the file object {source!r}"


def read_bytes(source: str | os.PathLike[str] | BinaryIO) -> bytes:
    """All bytes of a path, or the rest of a binary file object.

    Raises:
        ArtifactError: if it is a folder, or a file object that has no bytes left or holds text.
        FileNotFoundError: if there is no such file.
    """
    with reading(name_of(source)):
        content = Path(source).read_bytes() if isinstance(source, str | os.PathLike) else source.read()
    if not isinstance(content, bytes):
        raise ArtifactError(name_of(source), "must be opened in binary mode", hint='open(path, "rb")')
    if not content and not isinstance(source, str | os.PathLike):
        raise ArtifactError(name_of(source), "has no bytes left to read", hint="Call its seek(0) before loading.")
    return content


def is_zip(content: bytes) -> bool:
    """Whether a file begins as a zip does; `check_zip` checks the rest."""
    return content[:4] == b"PK\x03\x04"


def safetensors_header(content: bytes, path: str) -> Header:
    """The header of a safetensors file, after checks of the whole file that need no more memory than the header.

    Raises:
        ArtifactError: unless the header is strict JSON of at most `MAX_HEADER` bytes, the data of its tensors follow
            it and each other to the end of the file, and no zip is inside.
    """
    size = int.from_bytes(content[:8], "little")
    if len(content) < 10 or not 2 <= size <= min(MAX_HEADER, len(content) - 8) or content[8:9] != b"{":
        raise ArtifactError(
            path,
            f"is not a policy file: it does not begin with the length (at most {MAX_HEADER:,} bytes) and the text of a "
            "JSON header",
        )
    header = parse_json(content[8 : 8 + size], path, "the header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ArtifactError(path, "must be an object of texts", place="the header, '__metadata__'")
    spans = {name: _span(entry, path, name) for name, entry in header.items()}
    ordered = sorted(spans, key=lambda name: spans[name][1:])
    end = 0
    for name in ordered:
        _, first, last = spans[name]
        if first != end:
            raise ArtifactError(
                path, f"its data begin at byte {first}, and the data before end at {end}", place=f"tensor {name!r}"
            )
        end = last
    if 8 + size + end != len(content):
        raise ArtifactError(path, f"has {len(content)} bytes, and its header declares {8 + size + end}")
    if _opens_as_zip(content):
        raise ArtifactError(
            path, "is a safetensors file and a zip at once, which no program writes", hint="Do not use this file."
        )
    return Header(metadata, {name: spans[name][0] for name in ordered}, 8 + size)


def _span(entry: Any, path: str, name: str) -> tuple[Declared, int, int]:
    """Type, first byte and end of a tensor of the header."""
    place = f"tensor {name!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ArtifactError(path, "must be declared by dtype, shape and data_offsets", place=place)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise ArtifactError(path, f"has the type {str(dtype)[:40]!r}, not one of {', '.join(SIZES)}", place=place)
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2 or len(shape) > 16:
        raise ArtifactError(path, "shape and data_offsets must be lists of whole numbers", place=place)
    if math.prod(shape) * SIZES[dtype] != offsets[1] - offsets[0]:
        raise ArtifactError(path, f"its shape {shape} does not have the {offsets[1] - offsets[0]} bytes", place=place)
    return Declared(dtype, tuple(shape)), offsets[0], offsets[1]


def _are_sizes(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 1 << 48 for n in numbers)


def _opens_as_zip(content: bytes) -> bool:
    try:
        zipfile.ZipFile(io.BytesIO(content)).close()
    except Exception:  # Whatever goes wrong: it is not a zip that Python reads.
        return False
    return True


def check_zip(content: bytes, path: str, place: str = "", *, stored: bool = False) -> Mapping[str, int]:
    """Checks the structure of a zip without unpacking it.

    Args:
        content: the whole file.
        path: its path, for errors.
        place: where in that file the zip is; "": it is the whole file.
        stored: whether its members must not be compressed.

    Returns:
        Name of each member -> unpacked size in bytes.

    Raises:
        ArtifactError: unless its members follow each other from the first byte to the directory, which ends the file;
            names are unique; nothing is encrypted; and the unpacked sizes are within `MAX_RATIO` times the file.
    """

    def refuse(problem: str) -> ArtifactError:
        return ArtifactError(path, f"is damaged, or is not a model that model.save() wrote: {problem}", place=place)

    try:
        members = zipfile.ZipFile(io.BytesIO(content)).infolist()
        signature, *_, count, length, offset, comment = _END.unpack(content[-_END.size :])
    except Exception as error:  # Python's reader fails with errors of many classes.
        raise refuse(f"{type(error).__name__}: {error}") from error
    if signature != b"PK\x05\x06" or comment:
        raise refuse("bytes follow the directory of the zip")
    directory = len(content) - _END.size - length
    if offset != directory and offset + _END64 != directory:
        raise refuse("the directory of the zip is not where it says")
    if not members or count != len(members) or len(members) > MAX_MEMBERS:
        raise refuse(f"it must have 1 to {MAX_MEMBERS} members, and has {len(members)}")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise refuse("two members have one name")
    for member in members:
        if member.flag_bits & 0x1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refuse(f"the member {member.filename!r} is encrypted, or packed by another method than deflate")
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise refuse(f"the member {member.filename!r} declares two sizes")
        if stored and member.compress_type != zipfile.ZIP_STORED:
            raise refuse(f"the member {member.filename!r} is compressed")
    _check_tiling(content, members, offset, refuse)
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_RATIO * len(content):
        raise refuse(f"it unpacks to {unpacked:,} bytes, more than {MAX_RATIO} times its {len(content):,}")
    return {member.filename: member.file_size for member in members}


def _check_tiling(content: bytes, members: list[zipfile.ZipInfo], end: int, refuse: Any) -> None:
    """Members must lie one after the other; a data descriptor of up to 24 bytes may follow each."""
    ordered = sorted(members, key=lambda member: member.header_offset)
    starts = [member.header_offset for member in ordered]
    if starts[0] != 0:
        raise refuse("bytes precede the zip")
    for member, (start, following) in zip(ordered, pairwise([*starts, end]), strict=True):
        header = content[start : start + _LOCAL.size]
        if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
            raise refuse(f"the member {member.filename!r} is not where the directory says")
        *_, name_length, extra_length = _LOCAL.unpack(header)
        gap = following - (start + _LOCAL.size + name_length + extra_length + member.compress_size)
        if not (gap == 0 or (member.flag_bits & 0x8 and gap in (12, 16, 20, 24))):
            raise refuse(f"the member {member.filename!r} overlaps the next one, or bytes lie between them")


def read_member(content: bytes, path: str, name: str) -> bytes:
    """A member of a zip that `check_zip` has checked.

    Raises:
        ArtifactError: if there is none, its checksum is wrong, or it unpacks to more than it declares.
    """
    with reading(path, name, "It is damaged, or is not a model that model.save() wrote."):
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(name) as member:
            size = archive.getinfo(name).file_size
            unpacked = member.read(size + 1)
        if len(unpacked) != size:
            raise ValueError(f"it unpacks to another size than the {size:,} bytes that it declares")
        return unpacked
