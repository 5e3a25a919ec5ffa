"""The SIGTERM of a cluster as an exception."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, final


@final
class Terminated(KeyboardInterrupt):
    """SIGTERM asked this process to end. What saves the work after Ctrl-C does so after SIGTERM, too."""


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Signal handler that raises `Terminated`."""
    raise Terminated


@contextmanager
def raising_terminated() -> Iterator[None]:
    """SIGTERM raises `Terminated` in the block, where it would end the process at once.

    Outside of the main thread, and where the process handles SIGTERM itself, nothing changes.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
