"""Reading of pickles from strangers: arrays, numbers, text and containers are built, and nothing is called.

A pickle is a program, which may call any function of any installed package. The reader below never looks a name up: it
knows the few names that the pickles of numpy, jax and flax contain, and has a builder of its own for each. Every other
name is refused.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

import numpy as np

from flowpolicies.artifacts import MAX_DEPTH, ArtifactError, reading

MAX_FILE_BYTES = 8 * 2**30
"""Largest pickle that is read, in bytes. An array is never larger than its bytes in the file."""
MAX_INSTRUCTIONS = 200_000
"""Largest number of instructions in a pickle; a checkpoint of FQL with its optimizer has about 6,000."""
MAX_LEAVES = 20_000
"""Largest number of arrays and other values in the nested dicts of a pickle."""

REFUSED_INSTRUCTIONS = {
    "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER",
    "READONLY_BUFFER",
}  # fmt: skip
"""Instructions that make objects of classes, or refer to what is outside of the file."""

DTYPES = {
    *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)),
    *("f2", "f4", "f8", "b1", "?"),
    *("bool", "float16", "float32", "float64"),
    *(f"{sign}int{8 * size}" for sign in ("", "u") for size in (1, 2, 4, 8)),
}
"""Names of the array types that are accepted."""


@final
class _Allowance:
    """Bytes that the builders of one pickle may still make, so that a short pickle cannot copy its content forever."""

    def __init__(self, size: int) -> None:
        self._left = 4 * size + 2**20

    def spend(self, made: Any) -> None:
        """Counts what was made.

        Raises:
            pickle.UnpicklingError: if it is more than is left.
        """
        self._left -= len(made) if isinstance(made, bytes) else 100 * len(made) if isinstance(made, dict) else 0
        if self._left < 0:
            raise pickle.UnpicklingError("the pickle unpacks to far more than it holds")


@final
class _Global:
    """A builder in the place of a name of a pickle. It has no attributes that a pickle could set."""

    __slots__ = ("_budget", "_build")
    _build: Callable[..., Any]
    _budget: _Allowance

    def __init__(self, build: Callable[..., Any], budget: _Allowance) -> None:
        object.__setattr__(self, "_build", build)
        object.__setattr__(self, "_budget", budget)

    def __call__(self, *args: Any) -> Any:
        made = self._build(*args)
        self._budget.spend(made)
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("a pickle of arrays does not change functions")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a pickle of arrays does not change functions")


@final
class _PickledType:
    """An array type, and its byte order, which pickles set afterwards."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, *flags: Any) -> None:
        if not isinstance(name, str) or name not in DTYPES:
            raise pickle.UnpicklingError(f"arrays of type {name!r} are not accepted, only numbers and booleans")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", "|", "="):
            raise pickle.UnpicklingError(f"an array type has the byte order {order!r}, and only '<' is read")
        self.dtype = self.dtype.newbyteorder(order)


@final
class _PickledArray:
    """An array, which is empty until a pickle sets its content."""

    __slots__ = ("value",)

    def __init__(self, *args: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        self.value = _as_array(content, dtype, shape, "F" if is_fortran else "C")


def _as_array(content: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    """The array of some bytes, which it must fill.

    Raises:
        pickle.UnpicklingError: if the bytes are more or fewer than the shape needs, or anything has the wrong type.
    """
    if not isinstance(content, bytes | bytearray) or not isinstance(dtype, _PickledType):
        raise pickle.UnpicklingError(f"the content of an array is {type(content).__name__}, not bytes of numbers")
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if not all(type(size) is int and size >= 0 for size in sizes) or len(sizes) > 32:
        raise pickle.UnpicklingError(f"an array has the shape {shape!r}")
    needed = math.prod(sizes) * dtype.dtype.itemsize
    if needed != len(content):
        raise pickle.UnpicklingError(f"an array of shape {sizes} needs {needed:,} bytes, the file has {len(content):,}")
    if order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array has the order {order!r}")
    return np.frombuffer(content, dtype.dtype).reshape(sizes, order=order)


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _PickledArray:
    array = _PickledArray()
    array.value = _as_array(content, dtype, shape, order)
    return array


def _scalar(dtype: Any, content: Any = b"") -> Any:
    return _as_array(content, dtype, ())[()]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding!r}, not as latin1")
    return text.encode("latin1")


def _jax_array(build: Any, args: Any, state: Any, *_: Any) -> _PickledArray:
    """`jax._src.array._reconstruct_array`: the array that numpy's function would build, without jax."""
    array = build(*args) if isinstance(build, _Global) else None
    if not isinstance(array, _PickledArray):
        raise pickle.UnpicklingError("an array of jax is not built from an array of numpy")
    array.__setstate__(state)
    return array


def _dict(items: Any = ()) -> dict[Any, Any]:
    if not isinstance(items, dict | list | tuple):
        raise pickle.UnpicklingError(f"a dict is made of {type(items).__name__}")
    return dict(items)


def _bytes(content: Any = b"", encoding: Any = "latin1") -> bytes:
    if isinstance(content, str):
        return _encode(content, encoding)
    if not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError(f"bytes are made of {type(content).__name__}")
    return bytes(content)


def _nothing(*_: Any) -> Any:
    raise pickle.UnpicklingError("numpy.ndarray is not called in pickles of arrays")


_BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _nothing,  # An argument of `_reconstruct`.
    ("numpy", "dtype"): _PickledType,
    ("numpy.dtypes", "dtype"): _PickledType,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _PickledArray for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    ("jax._src.array", "_reconstruct_array"): _jax_array,
    ("jax._src.device_array", "reconstruct_device_array"): _jax_array,
    ("jax.interpreters.xla", "_reconstruct_device_array"): _jax_array,
    ("flax.core.frozen_dict", "FrozenDict"): _dict,
    ("collections", "OrderedDict"): _dict,
    ("_codecs", "encode"): _encode,
    **{(builtins, "dict"): _dict for builtins in ("builtins", "__builtin__")},
    **{(builtins, "bytes"): _bytes for builtins in ("builtins", "__builtin__")},
    **{(builtins, "bytearray"): _bytes for builtins in ("builtins", "__builtin__")},
}
"""Module and name -> what is built in its place."""


@final
class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content))
        self._path, self._budget = path, _Allowance(len(content))

    def find_class(self, module: str, name: str) -> Any:
        build = _BUILDERS.get((module, name))
        if build is None:
            raise ArtifactError(
                self._path,
                f"the pickle refers to {module}.{name}, which is not an array, a number, text or a dict of these",
                hint="It was refused, and nothing in it was executed. Checkpoints of the authors' save_agent() hold "
                "arrays in dicts only; if you trust this file, convert it so: "
                "pickle.dump(jax.tree.map(numpy.asarray, flax.serialization.to_state_dict(agent)), file).",
            )
        return _Global(build, self._budget)


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """Nested dicts, lists and tuples of arrays, numbers and text from a pickle, without executing anything in it.

    Neither jax nor flax is needed. Arrays of both become arrays of numpy.

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if it is not a pickle, is damaged, or refers to anything else.
    """
    path = Path(path)
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise ArtifactError(path, f"has {size:,} bytes, and pickles of up to {MAX_FILE_BYTES:,} are read")
    content = path.read_bytes()
    with reading(path, hint="The file is damaged, or not a pickle of arrays in dicts."):
        _check_instructions(content)
        tree = _Unpickler(content, path).load()
        return _finished(tree, iter(range(MAX_LEAVES)))


def _check_instructions(content: bytes) -> None:
    """Raises an error for instructions that no pickle of arrays has, before any is followed."""
    for number, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        if instruction.name in REFUSED_INSTRUCTIONS:
            raise ValueError(f"the pickle has the instruction {instruction.name}, which makes or finds other objects")
        if number >= MAX_INSTRUCTIONS:
            raise ValueError(f"the pickle has more than {MAX_INSTRUCTIONS:,} instructions")
        # Python's unpickler reserves memory for the number of an entry of its memo, not for the entries.
        if "PUT" in instruction.name and isinstance(argument, int) and argument > MAX_INSTRUCTIONS:
            raise ValueError(f"the pickle numbers an object {argument:,}")


def _finished(value: Any, leaves: Iterator[int], depth: int = 0) -> Any:
    """A value with the arrays in the place of their builders."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if next(leaves, None) is None:
        raise ValueError(f"more than {MAX_LEAVES:,} values")
    if isinstance(value, _PickledArray):
        if value.value is None:
            raise ValueError("an array has no content")
        return value.value
    if isinstance(value, dict):
        if not all(isinstance(key, str | int) for key in value):
            raise ValueError("a key of a dict is neither text nor a number")
        return {key: _finished(item, leaves, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finished(item, leaves, depth + 1) for item in value)
    if value is None or isinstance(value, bool | int | float | str | bytes | bytearray | np.generic):
        return value
    raise ValueError(f"the pickle holds an object of type {type(value).__name__}")
