"""The restricted reader of pickles builds what numpy, jax and flax write, and nothing else."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowpolicies.artifacts import ArtifactError
from flowpolicies.importing import read_pickle


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Any]:
    """Reads the content of a pickle."""

    def call(content: bytes) -> Any:
        (tmp_path / "some.pkl").write_bytes(content)
        return read_pickle(tmp_path / "some.pkl")

    return call


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.reduced


PLAIN = [
    {"a": 1, "b": [2.5, "text", None, True, b"bytes", (3, 4)], "c": {}},
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.asfortranarray(np.arange(12, dtype=np.float64).reshape(3, 4)),
    np.arange(10)[::2],
    np.zeros((0, 3), np.float16),
    np.array(5, np.uint8),
    np.array([True, False]),
    np.float32(1.5),
    np.int64(-3),
    np.bool_(True),
    OrderedDict(a=np.ones(2), b=1),
    bytearray(b"xy"),
]


def same(one: Any, other: Any) -> bool:
    if isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in other)
    if isinstance(other, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and bool(np.array_equal(one, other))
    return bool(one == other)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_arrays_and_plain_values_are_read(value: Any, protocol: int, read: Callable[[bytes], Any]) -> None:
    assert same(read(pickle.dumps(value, protocol)), value)


def test_names_of_the_older_numpy_are_read(read: Callable[[bytes], Any]) -> None:
    content = pickle.dumps({"a": np.arange(3), "b": np.float32(2)}, 2)
    assert b"numpy._core" in content
    assert same(read(content.replace(b"numpy._core", b"numpy.core")), {"a": np.arange(3), "b": np.float32(2)})


FROM_JAX = (
    b"\x80\x04\x95\xdb\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06kernel\x94\x8c\x0ejax._src.array\x94\x8c\x12_reconstruct_array"
    b"\x94\x93\x94(\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93"
    b"\x94K\x00\x85\x94C\x01b\x94\x87\x94(K\x01K\x03\x85\x94h\x08\x8c\x05dtype\x94\x93\x94\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03"
    b"\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x0c\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@"
    b"\x94t\x94}\x94\x8c\tweak_type\x94\x89st\x94R\x94s."
)
"""What jax 0.10.2 writes for `pickle.dumps({"kernel": jnp.arange(3, dtype=jnp.float32)}, 4)`."""


def test_arrays_of_jax_and_frozen_dicts_of_flax_are_read(read: Callable[[bytes], Any]) -> None:
    array = np.arange(3, dtype=np.float32)
    assert same(read(FROM_JAX), {"kernel": array})
    # FrozenDict pickles as a call of itself with the dict.
    frozen = pickle.dumps(Calls(OrderedDict, {"kernel": array}), 2).replace(
        b"ccollections\nOrderedDict\n", b"cflax.core.frozen_dict\nFrozenDict\n"
    )
    assert b"FrozenDict" in frozen
    assert same(read(frozen), {"kernel": array})


def raises(read: Callable[[bytes], Any], content: bytes, match: str) -> None:
    with pytest.raises(ArtifactError, match=match):
        read(content)


TARGETS: list[tuple[Any, tuple[Any, ...], str]] = [
    (os.system, ("touch {witness}",), r"(posix|nt)\.system"),
    (builtins.eval, ("open({witness!r}, 'w')",), r"(builtins|__builtin__)\.eval"),
    (builtins.exec, ("open({witness!r}, 'w')",), r"\.exec"),
    (builtins.getattr, (os, "system"), r"\.getattr"),
    (subprocess.Popen, (["touch", "{witness}"],), r"(subprocess|commands)\.Popen"),
    (io.open, ("{witness}", "w"), r"io\.open"),
    (np.load, ("{witness}",), r"numpy.*\.load"),
    (pickle.loads, (b"",), r"_?pickle\.loads"),
    (__import__, ("antigravity",), r"__import__"),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(("function", "args", "name"), TARGETS, ids=lambda value: getattr(value, "__name__", ""))
def test_calls_are_refused_by_name(
    function: Any, args: tuple[Any, ...], name: str, protocol: int, tmp_path: Path, read: Callable[[bytes], Any]
) -> None:
    witness = str(tmp_path / "witness")
    filled = tuple(a.format(witness=witness) if isinstance(a, str) else "os" if a is os else a for a in args)
    call = Calls(function, *filled)
    for value in (call, {"agent": {"network": {"params": [np.ones(3), call]}}}, Calls(dict, call), {call: 1}):
        raises(read, pickle.dumps(value, protocol), rf"refers to .*{name}.*nothing in it was executed")
    assert not os.path.exists(witness)


def test_a_call_inside_of_an_array_of_jax_is_refused(read: Callable[[bytes], Any]) -> None:
    content = b"cjax._src.array\n_reconstruct_array\n(cos\nsystem\n(S'true'\ntN}tR."
    raises(read, content, r"refers to os\.system")
    raises(read, b"cjax._src.array\n_reconstruct_array\n(cnumpy\ndtype\n(S'f4'\ntN}tR.", "not built from an array")


@pytest.mark.parametrize(
    "content",
    [
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"cnumpy\ndtype\n)\x81.",  # NEWOBJ
        b"Psomething\n.",  # PERSID
        b"\x82\x01.",  # EXT1
    ],
)
def test_instructions_that_make_other_objects_are_refused(content: bytes, read: Callable[[bytes], Any]) -> None:
    raises(read, content, r"the opcode|refers to os\.system|makes no objects of classes")


def test_the_builders_cannot_be_changed(read: Callable[[bytes], Any]) -> None:
    for state in (b"}S'x'\nI1\nsb.", b"N}S'_build'\nI1\ns\x86b."):
        raises(read, b"cnumpy\ndtype\n" + state, "does not change")
        raises(read, b"ccollections\nOrderedDict\n" + state, "does not change")
    assert same(read(pickle.dumps(np.ones(2))), np.ones(2))


def array_pickle(shape: tuple[int, ...], dtype: str, content: bytes) -> bytes:
    """A pickle of an array with these declarations."""
    function, args, _ = np.zeros(2, np.float32).__reduce__()
    kind = Calls(np.dtype, dtype, False, True, state=(3, "<", None, None, None, -1, -1, 0))
    return pickle.dumps(Calls(function, *args, state=(1, shape, kind, False, content)))


@pytest.mark.parametrize(
    ("shape", "dtype", "content", "match"),
    [
        ((10**12,), "f4", b"1234", "needs 4,000,000,000,000 bytes, the file has 4"),
        ((2**62, 2**62), "f4", b"", "shape"),
        ((-1,), "f4", b"1234", "shape"),
        ((1,) * 40, "f4", b"1234", "shape"),
        ((1,), "O", b"12345678", "type 'O'"),
        ((1,), "V8", b"12345678", "type 'V8'"),
        ((1,), "S1000000", b"1", "type 'S1000000'"),
        ((2,), "f4", b"1234", "needs 8 bytes, the file has 4"),
    ],
)
def test_arrays_are_no_larger_than_their_bytes(
    shape: tuple[int, ...], dtype: str, content: bytes, match: str, read: Callable[[bytes], Any]
) -> None:
    raises(read, array_pickle(shape, dtype, content), match)


def test_a_pickle_does_not_unpack_to_far_more_than_it_holds(read: Callable[[bytes], Any]) -> None:
    text = b"X" + struct.pack("<I", 200_000) + b"a" * 200_000
    copies = b"(lc_codecs\nencode\nq\x01" + text + b"q\x02X\x06\x00\x00\x00latin1\x86q\x0300"
    raises(read, copies + b"h\x01h\x03Ra" * 20_000 + b".", "far more than it holds")
    nested = b"}q\x00" + b"".join(
        b"}q" + bytes([i + 1]) + b"(" + b"".join(b"K" + bytes([j]) + b"h" + bytes([i]) for j in range(10)) + b"u0"
        for i in range(9)
    )
    raises(read, nested + b"h\x09.", "repeat one another too often")
    raises(read, b"]" * 50 + b"a" * 49 + b".", "nested deeper")
    raises(read, b"](" + b"N" * 20_001 + b"e.", "more than 20,000 values")
    assert read(b"K\x01" + b"r" + struct.pack("<I", 2**32 - 1) + b".") == 1  # The memo is as large as its entries.
    raises(read, b"N0" * 150_000 + b"N.", "more than 200,000 opcodes")
    raises(read, b"\x96" + struct.pack("<Q", 2**50) + b"x.", "bytearray8|expected")


@pytest.mark.parametrize("content", [b"", b".", b"hello", b"\x80\x04", b"\x80\x04}", b"PK\x03\x04", b"\x80\x09N."])
def test_other_files_are_refused(content: bytes, read: Callable[[bytes], Any]) -> None:
    raises(read, content, "damaged, or not a pickle|nothing in it")


def test_any_damage_raises_one_error(read: Callable[[bytes], Any]) -> None:
    whole = pickle.dumps({"a": {"b": np.arange(6.0), "c": np.float32(1)}, "d": ["text", 3]})
    random = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), random.integers(1, 4)):
            damaged[place] = random.integers(0, 256)
        try:
            read(bytes(damaged[: random.integers(1, len(whole) + 1)]))
        except ArtifactError:
            continue
    for end in range(0, len(whole), 7):
        raises(read, whole[:end], "some.pkl")
