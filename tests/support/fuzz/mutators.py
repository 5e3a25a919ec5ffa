"""Mutations of bytes and of JSON values. Each draws all of its choices from the generator that it is given."""

from __future__ import annotations

import copy
import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

Rng = np.random.Generator
T = TypeVar("T")
Mutator = Callable[[bytes, Rng], bytes]


def choose(rng: Rng, items: Sequence[T]) -> T:
    """One of the items; unlike `rng.choice`, it does not make an array of them."""
    return items[int(rng.integers(len(items)))]


def place(data: bytes, rng: Rng) -> int:
    """A position in the data; headers, which are at the ends of files, are drawn more often than the middle."""
    where = rng.random()
    if where < 0.3:
        return int(rng.integers(min(len(data), 128) + 1))
    if where < 0.5:
        return len(data) - int(rng.integers(min(len(data), 256) + 1))
    return int(rng.integers(len(data) + 1))


def overwrite(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def flip_bits(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for _ in range(int(2 ** rng.uniform(0, 6))):
        at = min(place(data, rng), len(data) - 1)
        if at >= 0:
            changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncate(data: bytes, rng: Rng) -> bytes:
    return data[: place(data, rng)]


def drop_start(data: bytes, rng: Rng) -> bytes:
    return data[int(rng.integers(1, 64)) :]


def zero_fill(data: bytes, rng: Rng) -> bytes:
    """A range of zeros, as after a power cut."""
    return overwrite(data, place(data, rng), bytes(int(2 ** rng.uniform(0, 12))))[: len(data)]


def splice(data: bytes, rng: Rng) -> bytes:
    """A range of the data is copied over another one."""
    start, size = place(data, rng), int(2 ** rng.uniform(0, 10))
    return overwrite(data, place(data, rng), data[start : start + size])


def insert(data: bytes, rng: Rng) -> bytes:
    at = place(data, rng)
    return data[:at] + rng.bytes(int(2 ** rng.uniform(0, 8))) + data[at:]


def extreme_integer(data: bytes, rng: Rng) -> bytes:
    """Bytes that may be a size, an offset or a number of entries become an extreme number."""
    size = choose(rng, (1, 2, 4, 8))
    most = 2 ** (8 * size)
    number = choose(rng, (0, 1, most - 1, most // 2, most // 2 - 1, 2**30 % most, 2**40 % most))
    return overwrite(data, place(data, rng), number.to_bytes(size, "little"))


def extreme_text_number(data: bytes, rng: Rng) -> bytes:
    """A number that is written in decimal digits becomes another one."""
    found = list(re.finditer(rb"\d+", data[:100_000]))
    if not found:
        return flip_bits(data, rng)
    number = choose(rng, found)
    texts = (b"0", b"-1", b"1000000000", b"99999999999999999999", b"1e9", b"1e400", b"NaN", b"true", b"null", b'"1"')
    return data[: number.start()] + choose(rng, texts) + data[number.end() :]


def repeat(data: bytes, rng: Rng) -> bytes:
    return data + data


def empty(data: bytes, rng: Rng) -> bytes:
    return b""


def noise(data: bytes, rng: Rng) -> bytes:
    return rng.bytes(int(2 ** rng.uniform(0, 12)))


def compressed(data: bytes, rng: Rng) -> bytes:
    return gzip.compress(data, 1)


def zip_behind(data: bytes, rng: Rng) -> bytes:
    """The data and a zip after it, which is what a zip with a prefix is as well."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(choose(rng, ("data", "x", "observations.npy")), rng.bytes(16))
    return data + buffer.getvalue()


OF_BYTES: tuple[Mutator, ...] = (
    flip_bits,
    flip_bits,
    flip_bits,
    truncate,
    drop_start,
    zero_fill,
    splice,
    insert,
    extreme_integer,
    extreme_integer,
    extreme_text_number,
    repeat,
    empty,
    noise,
    compressed,
    zip_behind,
)
"""Mutations of any file; those with most effect are named more than once."""


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


class Raw(str):
    """A text that is written into JSON as it is."""


HOSTILE: tuple[Any, ...] = (
    0,
    -1,
    1,
    2,
    7,
    10**6,
    10**9,
    2**31,
    2**63,
    10**30,
    0.0,
    0.5,
    -0.5,
    1e-30,
    1e9,
    1e38,
    1e308,
    Raw("1e999"),
    Raw("NaN"),
    Raw("-Infinity"),
    True,
    False,
    None,
    "",
    "a",
    "1",
    "true",
    "nan",
    "x" * 100_000,
    "é\u202e\U0001f600",
    "\x00",
    Raw('"\\ud800"'),
    "../../../../etc/passwd",
    "/etc/passwd",
    "os.system",
    "os:system",
    "builtins.eval",
    "__class__",
    [],
    {},
    [[]],
    [1, 2, 3],
    [10**6] * 8,
    [8] * 10_000,
    ["a"],
    {"type": "os.system"},
    {"dict": {}},
    {"type": None},
    Raw(nested(40)),
    Raw(nested(2_000)),
    Raw(nested(100_000)),
    Raw("[" * 5_000),
)
"""What a value of JSON becomes."""


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a value, the outermost one first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in paths_of(item, (*path, key)))]


def at_path(value: Any, path: Sequence[Any]) -> Any:
    for key in path:
        value = value[key]
    return value


def hostile_value(rng: Rng) -> Any:
    """A copy of one of the hostile values, which later changes may alter."""
    return copy.deepcopy(choose(rng, HOSTILE))


def mutate_json(value: Any, rng: Rng, changes: int | None = None) -> tuple[Any, str]:
    """A value in which one or more values are replaced, deleted, added or exchanged, and what was done."""
    value, done = copy.deepcopy(value), []
    for _ in range(changes or int(2 ** rng.uniform(0, 2))):
        paths = [path for path in paths_of(value) if path]
        if not paths or rng.random() < 0.01:
            value = hostile_value(rng)
            return value, "the whole value"
        path = choose(rng, paths)
        holder, key, way = at_path(value, path[:-1]), path[-1], rng.random()
        if way < 0.65:
            holder[key] = hostile_value(rng)
        elif way < 0.75:
            del holder[key]
        elif way < 0.85:
            holder[key] = copy.deepcopy(at_path(value, choose(rng, paths)))
        elif way < 0.9 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = holder[key] * choose(rng, (2, 10, 1000)) + 1
        elif isinstance(holder, dict):
            holder[choose(rng, ("", "type", "__class__", "x" * 1000, key + "_", "\u0000"))] = hostile_value(rng)
        else:
            holder.insert(0, hostile_value(rng))
        done.append(f"{'/'.join(map(str, path))[:80]} ({way:.2f})")
    return value, ", ".join(done)


def dump_json(value: Any, rng: Rng | None = None) -> str:
    """JSON with raw parts. Given a generator, a key is sometimes written twice."""
    raws: list[str] = []

    def mark(item: Any) -> Any:
        if isinstance(item, Raw):
            raws.append(str(item))
            return f"\ue000{len(raws) - 1}\ue000"
        if isinstance(item, dict):
            return {key: mark(inner) for key, inner in item.items()}
        return [mark(inner) for inner in item] if isinstance(item, list) else item

    text = json.dumps(mark(value))
    for number, raw in enumerate(raws):
        text = text.replace(f'"\\ue000{number}\\ue000"', raw)
    if rng is not None and rng.random() < 0.03 and text.startswith("{") and len(text) > 2:
        text = "{" + text[1:-1] + ", " + text[1:]
    return text
