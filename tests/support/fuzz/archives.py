"""Mutations that keep the outer structure of a file whole: headers of safetensors and npy, members of zips."""

from __future__ import annotations

import base64
import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from fuzz.mutators import OF_BYTES, Rng, choose, dump_json, mutate_json
from fuzz.pickles import hostile, hostile_torch

MIB = 2**20
BOMBS = (2**30, 2**31)
"""Sizes in bytes to which small files unpack."""

Made = tuple[bytes, str, bool]
"""The bytes, what was done, and whether the file must be refused."""


def any_bytes(data: bytes, rng: Rng) -> Made:
    mutator = choose(rng, OF_BYTES)
    return mutator(data, rng), mutator.__name__, False


# safetensors


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join_safetensors(header: Any, body: bytes, size: int | None = None, rng: Rng | None = None) -> bytes:
    text = dump_json(header, rng).encode()
    text += b" " * (-len(text) % 8)
    return (len(text) if size is None else size).to_bytes(8, "little") + text + body


def declaration(data: bytes, rng: Rng) -> Made:
    """The JSON of the policy in the metadata is mutated; the weights stay."""
    header, body = split_safetensors(data)
    metadata = header.get("__metadata__", {})
    key = "config" if "config" in metadata else choose(rng, sorted(metadata) or ["config"])
    try:
        value, what = mutate_json(json.loads(metadata[key]), rng)
    except (ValueError, KeyError):
        return tensors(data, rng)
    metadata[key] = dump_json(value, rng)
    return join_safetensors(header, body), f"declaration: {what}", False


def tensors(data: bytes, rng: Rng) -> Made:
    """The entries of the tensors are mutated."""
    header, body = split_safetensors(data)
    value, what = mutate_json(header, rng)
    return join_safetensors(value, body, rng=rng), f"header: {what}", False


def header_size(data: bytes, rng: Rng) -> Made:
    header, body = split_safetensors(data)
    size = choose(rng, (0, 1, 8, len(data), len(data) * 2, 2**31, 2**40, 2**63, 2**64 - 1))
    return join_safetensors(header, body, size), f"size of the header {size}", False


def not_finite(data: bytes, rng: Rng) -> Made:
    """A weight is not a number, or infinite; such policies act NaN."""
    header, body = split_safetensors(data)
    names = sorted(key for key, entry in header.items() if key != "__metadata__" and entry.get("dtype") == "F32")
    if not names:
        return any_bytes(data, rng)
    start, end = header[choose(rng, names)]["data_offsets"]
    if end - start < 4:
        return any_bytes(data, rng)
    at = start + 4 * int(rng.integers((end - start) // 4))
    value = struct.pack("<f", choose(rng, (float("nan"), float("inf"), float("-inf"))))
    return join_safetensors(header, body[:at] + value + body[at + 4 :]), "not finite", True


def rename_tensor(data: bytes, rng: Rng) -> Made:
    header, body = split_safetensors(data)
    names = sorted(key for key in header if key != "__metadata__")
    old, new = choose(rng, names), choose(rng, ("x", "networks.x.y", "__class__", "", names[0], "é" * 100))
    header[new] = header.pop(old)
    return join_safetensors(header, body), f"tensor {old} is {new!r}", new != old


def with_zip(data: bytes, rng: Rng) -> Made:
    """A file that is also a zip: its last tensor ends in one, with a hostile pickle, as a model zip has."""
    payload, what = hostile(rng)
    model = {"data": json.dumps({"cfg": {":type:": "x", ":serialized:": base64.b64encode(payload).decode()}}).encode()}
    tail = join_zip({**model, "policy.pth": payload, "pytorch_variables.pth": payload})
    header, body = split_safetensors(data)
    if rng.random() < 0.5:
        header["networks.extra"] = {
            "dtype": "U8",
            "shape": [len(tail)],
            "data_offsets": [len(body), len(body) + len(tail)],
        }
        return join_safetensors(header, body + tail), f"last tensor is a zip with {what}", True
    return data + tail, f"a zip with {what} follows", True


OF_SAFETENSORS: tuple[Callable[[bytes, Rng], Made], ...] = (
    declaration,
    declaration,
    declaration,
    declaration,
    tensors,
    tensors,
    header_size,
    not_finite,
    rename_tensor,
    with_zip,
    any_bytes,
    any_bytes,
    any_bytes,
)


# npy


def npy(header: str, body: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    raw = header.encode("latin1")
    size = struct.pack("<H" if version == (1, 0) else "<I", len(raw) % (2**16 if version == (1, 0) else 2**32))
    return b"\x93NUMPY" + bytes(version) + size + raw + body


SHAPES = (
    "(0,)",
    "()",
    "(-1,)",
    "(1000000000,)",
    "(10**9,)",
    "(99999999999999999999,)",
    "(1000,)",
    "(40, 1, 1, 1)",
    "(40,)",
    "(2, 2)",
    "(True,)",
    "None",
    "(1.5,)",
    "(" * 200 + ")" * 200,
    "(1," * 90 + ")" * 90,
)
DESCRS = (
    "'<f4'",
    "'<f8'",
    "'<f2'",
    "'|O'",
    "'|b1'",
    "'|u1'",
    "'<i8'",
    "'<c16'",
    "'<M8[s]'",
    "'<U10'",
    "'|S1000000'",
    "[('a', '<f4')]",
    "[('a', '|O')]",
    "'|V100'",
    "__import__('os').system('touch EXECUTED')",
    "'x'",
    "None",
    "'>f4'",
)


def npy_header(data: bytes, rng: Rng) -> Made:
    """Another type or shape for the same bytes."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
        descr, shape, body = repr(array.dtype.str), repr(array.shape), array.tobytes()
    except Exception:
        descr, shape, body = "'<f4'", "(1,)", data
    part = int(rng.integers(3))
    descr = choose(rng, DESCRS) if part == 0 else descr
    shape = choose(rng, SHAPES) if part == 1 else shape
    order = choose(rng, ("True", "1", "None")) if part == 2 else "False"
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    return (
        npy(header, body, choose(rng, ((1, 0), (1, 0), (2, 0), (3, 0), (9, 9)))),
        f"npy {descr} {shape} {order}"[:120],
        False,
    )


def npy_pickle(data: bytes, rng: Rng) -> Made:
    """An array of objects, which NumPy stores as a pickle."""
    payload, what = hostile(rng)
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    return npy(header, payload), f"npy of objects with {what}", True


def npy_values(data: bytes, rng: Rng) -> Made:
    """Values that are not finite or extreme."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False).copy()
    except Exception:
        return any_bytes(data, rng)
    if array.size == 0 or array.dtype.kind != "f":
        return any_bytes(data, rng)
    value = choose(rng, (np.nan, np.inf, -np.inf, 3e38, -3e38))
    array.flat[int(rng.integers(array.size))] = value
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue(), f"value {value}", False


OF_NPY = (npy_header, npy_header, npy_pickle, npy_values, any_bytes, any_bytes)


# zip


def split_zip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def join_zip(members: Mapping[str, bytes], *, twice: str | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
            if name == twice:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    archive.writestr(zipfile.ZipInfo(name), content[::-1], compression)
    return buffer.getvalue()


@cache
def deflated(start: bytes, size: int) -> tuple[bytes, int]:
    """`start` and zeros, `size` bytes together, in deflate's format, and their checksum; `size` is a number of MiB."""
    packer, first, zeros = zlib.compressobj(9, zlib.DEFLATED, -15), start.ljust(MIB, b"\0"), bytes(MIB)
    content = packer.compress(first) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = zlib.crc32(first)
    for _ in range(size // MIB - 1):
        checksum = zlib.crc32(zeros, checksum)
    return content + block * (size // MIB - 1) + packer.flush(), checksum


def with_bomb(members: Mapping[str, bytes], name: str, size: int, start: bytes = b"") -> bytes:
    """A zip in which one member unpacks to `size` bytes, `start` and zeros."""
    content, checksum = deflated(start, size)
    buffer = io.BytesIO(join_zip({key: value for key, value in members.items() if key != name}))
    with zipfile.ZipFile(buffer, "a") as archive:
        assert archive.fp is not None
        archive.fp.seek(archive.start_dir)
        info = zipfile.ZipInfo(name)
        info.compress_type, info.header_offset = zipfile.ZIP_DEFLATED, archive.fp.tell()
        info.CRC, info.compress_size, info.file_size = checksum, len(content), size
        archive.fp.write(info.FileHeader() + content)
        archive.filelist.append(info)
        archive.NameToInfo[name] = info
        archive.start_dir, archive._didModify = archive.fp.tell(), True
    return buffer.getvalue()


def zip_member(data: bytes, rng: Rng, mutate: Callable[[str, bytes, Rng], Made]) -> Made:
    """One member of a zip is mutated, removed, renamed, doubled, or joined by another."""
    try:
        members = split_zip(data)
    except Exception:
        return any_bytes(data, rng)
    name, way = choose(rng, sorted(members)), rng.random()
    if way < 0.7:
        members[name], what, must = mutate(name, members[name], rng)
        return (
            join_zip(members, compression=choose(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))),
            f"{name}: {what}",
            must,
        )
    if way < 0.78:
        del members[name]
        return join_zip(members), f"without {name}", False
    if way < 0.85:
        new = choose(rng, ("../../x", "/etc/x", "x" * 500, "", "data\x00", "observations.npy"))
        members[new] = members.pop(name)
        return join_zip(members), f"{name} is called {new[:20]!r}", False
    if way < 0.92:
        return join_zip(members, twice=name), f"{name} twice", False
    size = choose(rng, BOMBS)
    return with_bomb(members, name, size), f"{name} unpacks to {size} zeros", False


def npz(data: bytes, rng: Rng) -> Made:
    def mutate(name: str, content: bytes, rng: Rng) -> Made:
        return choose(rng, OF_NPY)(content, rng)

    if rng.random() < 0.1:
        return npz_bomb(data, rng)
    return zip_member(data, rng, mutate) if rng.random() < 0.75 else any_bytes(data, rng)


def npz_bomb(data: bytes, rng: Rng) -> Made:
    """A file of two MB that holds an array of one or two GB of zeros."""
    members, name, size = split_zip(data), choose(rng, ("observations", "extra", "rewards")), choose(rng, BOMBS)
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({(size - 128) // 4},), }}".ljust(117) + "\n"
    return with_bomb(members, f"{name}.npy", size, npy(header, b"")), f"{name} unpacks to {size} bytes", True


# Model zips


def model_member(name: str, content: bytes, rng: Rng) -> Made:
    if name.endswith(".pth"):
        if rng.random() < 0.5:
            payload, what = hostile_torch(rng)
            return payload, what, "big_memo" not in what  # That one is a plain None.
        return zip_member(content, rng, lambda _, inner, rng: any_bytes(inner, rng))
    try:
        value = json.loads(content)
    except ValueError:
        return any_bytes(content, rng)
    serialized = sorted(key for key, entry in value.items() if isinstance(entry, dict) and ":serialized:" in entry)
    way = rng.random()
    if way < 0.45 and serialized:
        key = choose(rng, serialized)
        payload, what = hostile(rng)
        value[key][":serialized:"] = base64.b64encode(payload).decode()
        return json.dumps(value).encode(), f"{key} is {what}", False
    if way < 0.6 and serialized:
        key = choose(rng, serialized)
        raw, what, _ = any_bytes(base64.b64decode(value[key][":serialized:"]), rng)
        value[key][":serialized:"] = base64.b64encode(raw).decode()
        return json.dumps(value).encode(), f"{key}: {what}", False
    if way < 0.7:
        payload, what = hostile(rng)
        value[choose(rng, ("extra", "cfg", "policy_class", "lr_schedule"))] = {
            ":type:": "<class 'function'>",
            ":serialized:": base64.b64encode(payload).decode(),
        }
        return json.dumps(value).encode(), f"a further key is {what}", False
    changed, what = mutate_json(value, rng)
    return dump_json(changed, rng).encode(), what, False


def model(data: bytes, rng: Rng) -> Made:
    return zip_member(data, rng, model_member) if rng.random() < 0.8 else any_bytes(data, rng)
