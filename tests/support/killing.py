"""Kills this package at a chosen file operation, as SIGKILL or a power cut would."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

OPERATIONS = ("replace", "unlink", "truncate", "fsync", "rmdir", "mkdir")
"""Functions of `os` through which files appear, change and disappear."""


def killed_at(number: int, function: Callable[[], object]) -> bool:
    """Calls a function in a copy of this process, which is killed before its file operation of this number.

    Returns:
        Whether it was killed; False if it has fewer operations.
    """
    pid = os.fork()
    if pid == 0:
        _count_down(number)
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, "the function failed in the copy"
    return os.WIFSIGNALED(status)


def _count_down(number: int) -> None:
    left = [number]

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return operation(*args, **kwargs)

        return call

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))
