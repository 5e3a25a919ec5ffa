"""Reading of pickles of arrays: numbers, text and containers of them are made, and nothing else.

`flowpolicies.pickles` runs a pickle without calling or importing what it names. The vocabulary here is that of the
pickles of numpy, jax and flax: arrays, array types, numbers and dicts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, final

import numpy as np

from flowpolicies.artifacts import MAX_DEPTH, ArtifactError, reading
from flowpolicies.pickles import UnknownName, arrays
from flowpolicies.pickles import read_pickle as run_pickle

MAX_FILE_BYTES = 8 * 2**30
"""Largest pickle that is read, in bytes. An array is never larger than its bytes in the file."""
MAX_OPCODES = 200_000
"""Largest number of opcodes of a pickle; a checkpoint of FQL with its optimizer has about 6,000."""
MAX_LEAVES = 20_000
"""Largest number of arrays and other values in the nested dicts of a pickle."""


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
    with reading(path, hint="The file is damaged, or not a pickle of arrays in dicts."):
        try:
            found = run_pickle(path.read_bytes(), _ArrayNames(), old_protocols=True, max_opcodes=MAX_OPCODES)
            return _plain(found, iter(range(MAX_LEAVES)))
        except UnknownName as error:
            raise ArtifactError(
                path,
                f"the pickle refers to {error.module}.{error.name}, which is not an array, a number, text or a dict of "
                "these",
                hint="It was refused, and nothing in it was executed. Checkpoints of the authors' save_agent() hold "
                "arrays in dicts only; if you trust this file, convert it so: "
                "pickle.dump(jax.tree.map(numpy.asarray, flax.serialization.to_state_dict(agent)), file).",
            ) from None


def _dtype(text: Any, *flags: Any) -> np.dtype[Any]:
    if text in ("O", "O8"):
        raise ValueError(f"arrays of the type {text!r} hold objects, not numbers")
    return arrays.dtype(text)


def _jax_array(build: Any, arguments: Any, state: Any, *_: Any) -> Any:
    """`jax._src.array._reconstruct_array`: the array that numpy's function would build, without jax."""
    if build is not arrays.empty_array:
        raise ValueError("an array of jax is not built from an array of numpy")
    array = arrays.empty_array(*arguments)
    arrays.fill_array(array, state)
    return array


def _dict(items: Any = ()) -> dict[Any, Any]:
    if type(items) is not dict and items != ():
        raise ValueError(f"a dict is made of {type(items).__name__}")
    return dict(items)


def _bytes(content: Any = b"", encoding: Any = "latin1") -> bytes:
    if type(content) in (bytes, bytearray):
        return bytes(content)
    if type(content) is not str or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes are not text in latin1")
    return content.encode("latin1")


_NUMPY = ("numpy.core", "numpy._core")
_CALLED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _dtype,
    **{(f"{package}.numeric", "_frombuffer"): arrays.from_buffer for package in _NUMPY},
    **{(f"{package}.multiarray", "_reconstruct"): arrays.empty_array for package in _NUMPY},
    **{(f"{package}.multiarray", "scalar"): arrays.scalar for package in _NUMPY},
    ("jax._src.array", "_reconstruct_array"): _jax_array,
    ("jax._src.device_array", "reconstruct_device_array"): _jax_array,
    ("jax.interpreters.xla", "_reconstruct_device_array"): _jax_array,
    ("flax.core.frozen_dict", "FrozenDict"): _dict,
    ("collections", "OrderedDict"): _dict,
    **{(builtins, "dict"): _dict for builtins in ("builtins", "__builtin__")},
    ("_codecs", "encode"): _bytes,
    **{(builtins, kind): _bytes for builtins in ("builtins", "__builtin__") for kind in ("bytes", "bytearray")},
}
"""Module and name -> what a call of it makes."""


@final
class _ArrayNames:
    """The vocabulary of pickles of arrays."""

    def find(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):  # An argument of `_reconstruct`.
            return np.ndarray
        if (module, name) not in _CALLED:
            raise UnknownName(module, name)
        return _CALLED[module, name]

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if not any(function is known for known in _CALLED.values()):
            raise ValueError("a pickle of arrays does not call that")
        return function(*arguments)

    def make(self, cls: Any, arguments: tuple[Any, ...]) -> NoReturn:
        raise ValueError("a pickle of arrays makes no objects of classes")

    def fill(self, thing: Any, state: Any) -> None:
        if isinstance(thing, np.dtype):
            arrays.fill_dtype(thing, state)
        elif isinstance(thing, np.ndarray):
            arrays.fill_array(thing, state)
        else:
            raise ValueError("a pickle of arrays does not change objects")


def _plain(value: Any, leaves: Iterator[int], depth: int = 0) -> Any:
    """The value, if it consists of containers, arrays, numbers and text only."""
    if depth > MAX_DEPTH or next(leaves, None) is None:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels, or more than {MAX_LEAVES:,} values")
    if isinstance(value, dict):
        if not all(isinstance(key, str | int) for key in value):
            raise ValueError("a key of a dict is neither text nor a number")
        return {key: _plain(item, leaves, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item, leaves, depth + 1) for item in value)
    if value is None or isinstance(value, bool | int | float | str | bytes | bytearray | np.ndarray | np.generic):
        return value
    raise ValueError(f"the pickle holds an object of type {type(value).__name__}")
