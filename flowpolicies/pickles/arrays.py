"""Arrays, numbers, generators and tensors of pickles, made from checked arguments."""

from __future__ import annotations

import io
import math
import re
from typing import Any, cast, final

import numpy as np
import torch
from torch import Tensor

PLAIN = "biufc"
"""Kinds of the numpy types that are made: booleans, whole, real and complex numbers."""
GENERATORS = {"PCG64": np.random.PCG64, "PCG64DXSM": np.random.PCG64DXSM}
"""Bit generators whose whole state is checked when it is set."""


def dtype(text: Any, align: Any = False, copy: Any = True) -> np.dtype[Any]:
    """A type of numbers, or that of objects."""
    if type(text) is not str or not re.fullmatch(r"[<>=|]?([biufc]\d{1,2}|O8?|\?)", text):
        raise ValueError(f"the numpy type {str(text)[:40]!r} is not one of numbers")
    return np.dtype(text, False, True)


def fill_dtype(made: np.dtype[Any], state: Any) -> None:
    """Sets the order of bytes, which is all that the state of such a type has."""
    if type(state) is not tuple or len(state) < 8 or any(part is not None for part in state[2:5]):
        raise ValueError("a numpy type has fields")
    if made.kind in PLAIN and state[1] in ("<", ">", "|", "="):
        made.__setstate__((3, state[1], None, None, None, -1, -1, 0))  # type: ignore[attr-defined]


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if type(shape) is not tuple or len(shape) > 16 or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape):
        raise ValueError("an array has no valid shape")
    return shape


def _checked_type(kind: Any, allowed: str = PLAIN) -> np.dtype[Any]:
    if not isinstance(kind, np.dtype) or kind.kind not in allowed or kind.fields is not None:
        raise ValueError("an array does not hold numbers")
    return kind


def _check_bytes(content: bytes | bytearray, shape: tuple[int, ...], kind: np.dtype[Any]) -> None:
    if (needed := math.prod(shape) * kind.itemsize) != len(content):
        raise ValueError(f"an array of shape {shape} needs {needed:,} bytes, the file has {len(content):,}")


def from_buffer(buffer: Any, kind: Any, shape: Any, order: Any = "C", axis_order: Any = None) -> np.ndarray:
    """As numpy's function of that name, for numbers."""
    if not isinstance(buffer, bytes | bytearray) or order not in ("C", "F", "A", "K"):
        raise ValueError("an array has no bytes")
    shape, kind = _checked_shape(shape), _checked_type(kind)
    _check_bytes(buffer, shape, kind)
    flat = np.frombuffer(buffer, kind) if buffer else np.empty(0, kind)
    if order == "K" and axis_order is not None:
        return flat.reshape(shape).transpose(_checked_shape(axis_order))
    return flat.reshape(shape, order=order)


def empty_array(cls: Any, shape: Any, kind: Any) -> np.ndarray:
    """An array that `fill_array` fills."""
    if cls is not np.ndarray:
        raise ValueError("an array is of another class")
    return np.empty(0, np.uint8)


def fill_array(made: np.ndarray, state: Any) -> None:
    """Gives an array its shape, type and content."""
    if type(state) is not tuple or len(state) != 5 or made.size or made.base is not None:
        raise ValueError("an array has no valid content")
    _, shape, kind, fortran, data = state
    shape, kind = _checked_shape(shape), _checked_type(kind, PLAIN + "O")
    if kind.kind != "O" and isinstance(data, bytes):
        _check_bytes(data, shape, kind)
    elif kind.kind != "O" or type(data) is not list or len(data) != math.prod(shape):
        raise ValueError(f"an array of shape {shape} does not have its content")
    made.__setstate__((1, shape, kind, bool(fortran), data))  # type: ignore[arg-type]


def scalar(kind: Any, data: Any) -> Any:
    """A number of a numpy type."""
    kind = _checked_type(kind)
    if type(data) is not bytes or len(data) != kind.itemsize:
        raise ValueError("a number does not have the bytes of its type")
    return np.frombuffer(data, kind)[0]


@final
class Seed:
    """A seed sequence that has no state yet. Numpy's own class does not check the state that it is given."""

    def __init__(self) -> None:
        self.sequence = np.random.SeedSequence(0)


def seed_sequence(cls: Any, checksum: Any, state: Any = None) -> Seed:
    """A seed sequence, with the state if it is given."""
    made = Seed()
    if state is not None:
        fill_seed(made, state)
    return made


def fill_seed(made: Seed, state: Any) -> None:
    """Makes the sequence anew from its entropy, from which all else follows."""
    entropy, spawned, _, pool_size, spawn_key = state[:5]
    numbers = [*(entropy if isinstance(entropy, list | tuple) else [entropy or 0]), *spawn_key, spawned, pool_size]
    if not all(type(n) is int and 0 <= n < 1 << 512 for n in numbers) or pool_size > 64 or len(numbers) > 1000:
        raise ValueError("a seed sequence has no valid state")
    made.sequence = np.random.SeedSequence(
        entropy, spawn_key=spawn_key, pool_size=pool_size, n_children_spawned=spawned
    )


def bit_generator(cls: Any) -> np.random.BitGenerator:
    """A bit generator of a class or of its name, with a state that follows."""
    name = cls if type(cls) is str else getattr(cls, "__name__", "")
    if name not in GENERATORS or (cls is not name and cls is not GENERATORS[name]):
        raise ValueError("a generator is not a PCG64")
    return GENERATORS[name](0)


def fill_bit_generator(made: Any, state: Any) -> None:
    """Sets the state of a PCG64, and the sequence that it was seeded from."""
    numbers, seed = state if type(state) is tuple else (state, None)
    inner = numbers["state"]
    checked = {
        "bit_generator": type(made).__name__,
        "state": {key: _whole(inner[key], 1 << 128) for key in ("state", "inc")},
        "has_uint32": _whole(numbers["has_uint32"], 2),
        "uinteger": _whole(numbers["uinteger"], 1 << 32),
    }
    if isinstance(seed, Seed):
        made.__setstate__((checked, seed.sequence))
    else:
        made.state = checked


def _whole(number: Any, limit: int) -> int:
    if type(number) is not int or not 0 <= number < limit:
        raise ValueError("a generator has no valid state")
    return number


def generator(bits: Any, constructor: Any = None) -> np.random.Generator:
    """A generator of random numbers on a bit generator, or on one of a name, whose state follows."""
    return np.random.Generator(bit_generator(bits) if type(bits) is str else _checked_bits(bits))


def _checked_bits(bits: Any) -> np.random.BitGenerator:
    if type(bits) not in GENERATORS.values():
        raise ValueError("a generator is not a PCG64")
    return cast(np.random.BitGenerator, bits)


def fill_generator(made: np.random.Generator, state: Any) -> None:
    """The state of a generator, in the files of numpy before 1.24."""
    fill_bit_generator(made.bit_generator, state)


def storage(content: Any) -> Any:
    """The numbers of a tensor, read by torch's own restricted reader."""
    if type(content) is not bytes:
        raise ValueError("a storage has no bytes")
    found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(found, torch.storage.TypedStorage):
        raise ValueError("a storage holds something else")
    return found


def tensor(numbers: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, *more: Any) -> Tensor:
    """A tensor on numbers that it does not repeat."""
    if not isinstance(numbers, torch.storage.TypedStorage) or hooks or any(part is not None for part in more):
        raise ValueError("a tensor has no numbers, or has hooks")
    shape, strides = _checked_shape(tuple(size)), _checked_shape(stride)
    held = numbers._untyped_storage.nbytes() // numbers.dtype.itemsize
    if len(shape) != len(strides) or type(offset) is not int or math.prod(shape) > held:
        raise ValueError(f"a tensor of shape {shape} does not have the numbers of its storage")
    made = torch.empty(0, dtype=numbers.dtype)
    return made.set_(numbers._untyped_storage, offset, shape, strides).requires_grad_(requires_grad is True)


def device(kind: Any, index: Any = None) -> torch.device:
    """A device by its kind and number."""
    if type(kind) is not str or not (index is None or type(index) is int):
        raise ValueError("a device has no valid name")
    return torch.device(kind) if index is None else torch.device(kind, index)
