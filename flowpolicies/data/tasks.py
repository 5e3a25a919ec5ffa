"""Numbered tasks in addresses, such as "ogbench:cube-single-play-singletask-task2-v0"."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TASK = re.compile(r"-singletask(?:-task(\d+))?(?=-v\d+)")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def task_of(address: str) -> int | None:
    """The number of the task in an address; None if it has none."""
    found = _TASK.search(address)
    return int(found[1]) if found and found[1] else None


def with_task(address: str, task: int) -> str:
    """The address of another task of the same environment.

    Raises:
        ValueError: if the address is not one of an environment with numbered tasks.
    """
    changed, count = _TASK.subn(f"-singletask-task{task}", address)
    if count != 1:
        raise ValueError(
            f"'{address}' has no numbered tasks; --tasks is for addresses such as "
            "ogbench:cube-single-play-singletask-v0. Leave --tasks out, or name the environments with --env."
        )
    return changed


def parse_tasks(words: Sequence[str]) -> tuple[int, ...]:
    """Numbers of tasks: `["1-3", "5"]` -> `(1, 2, 3, 5)`.

    Raises:
        ValueError: for a word that is neither a number nor a range of numbers.
    """
    found: list[int] = []
    for word in ",".join(words).split(","):
        parts = _RANGE.fullmatch(word)
        first, last = (int(parts[1]), int(parts[2] or parts[1])) if parts else (1, 0)
        if first > last:
            raise ValueError(f"--tasks takes numbers and ranges of tasks, such as 1-5 or 1 3, got {word!r}")
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))
