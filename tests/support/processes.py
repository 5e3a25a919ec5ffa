"""Copies of this process that run a function, for tests of signals, locks and limits."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import final

PATIENCE = 90
"""Seconds after which a copy that does not end by itself is killed."""


@final
class Copy:
    """A copy of this process that calls a function and ends with the exit code that it returns.

    Args:
        function: the function; 99 is the exit code if it raises an error, whose text is in the output.
        log: file for what the copy prints.
    """

    def __init__(self, function: Callable[[], int | None], log: Path) -> None:
        self.log = log
        log.write_bytes(b"")
        self.pid = os.fork()
        if self.pid == 0:
            signal.alarm(PATIENCE)
            with log.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            code = 99
            try:
                code = function() or 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}")
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    @property
    def output(self) -> str:
        """What the copy has printed."""
        return self.log.read_text()

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Waits for something that the copy does."""
        while not condition():
            assert os.waitpid(self.pid, os.WNOHANG) == (0, 0), self.output
            time.sleep(0.02)

    def send(self, number: int) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    def code(self) -> int:
        """The exit code, when the copy has ended; negative after a signal that it did not handle."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
