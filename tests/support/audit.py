"""Watches what Python does while a file is read: audit events, time and errors."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from flowpolicies.artifacts import ArtifactError

FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.startfile",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
    "exec",
    "os.remove",
    "os.rename",
    "shutil.",
    "ctypes.dlopen",
)
"""Beginnings of the names of audit events that reading a file must not raise."""
SECONDS = 2.0
"""Longest time of the processor that reading one file may take."""

_seen: list[str] | None = None
_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is not None and event.startswith(FORBIDDEN):
        _seen.append(f"{event}{arguments!r}"[:200])


@contextlib.contextmanager
def audited() -> Iterator[list[str]]:
    """The forbidden events of the block. Hooks cannot be removed, so one is added once and is idle outside of it."""
    global _seen, _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    _seen = events = []
    try:
        yield events
    finally:
        _seen = None


def assert_harmless(read: Callable[[], Any], what: str) -> bool:
    """Reads a file, asserts that nothing is run and that the only error is ArtifactError in time.

    Returns:
        Whether it was read without an error.
    """
    modules, start = set(sys.modules), time.process_time()
    with audited() as events:
        try:
            read()
        except ArtifactError:
            fine = False
        else:
            fine = True
    # Not speed but a promise of docs/guides/security.md: a hostile file cannot keep the reader busy.
    assert time.process_time() - start < SECONDS, f"{what} took {time.process_time() - start:.1f} s"
    # torch's own restricted reader is a pickle reader that looks its names up in a list.
    assert not [event for event in events if not event.startswith("pickle.find_class")], f"{what} raised {events}"
    new = {name for name in set(sys.modules) - modules if not name.startswith(("torch", "numpy", "sympy", "mpmath"))}
    assert not new, f"{what} imported {new}"
    return fine
