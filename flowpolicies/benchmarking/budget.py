"""Measurements that end in time: a budget of seconds, and work that is given up when its share is used."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final


@final
class OutOfTime(BaseException):
    """The time of a block is used up. It is not an Exception, so that no compiler takes it for a failure of its own."""


@final
class TimeBudget:
    """A number of seconds that begins now."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._begin = seconds, time.perf_counter()

    @property
    def used(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._begin

    def left(self, share: float = 1.0) -> float:
        """Seconds until a share of the budget is used; less than 0 afterwards."""
        return share * self.seconds - self.used


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises `OutOfTime` in a block that takes longer, as soon as the call into torch that is running returns.

    It uses the alarm of the process, so it works in the main thread only, and on Linux and macOS.
    """

    def give_up(number: int, frame: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(work: Callable[[dict[str, Any]], object], cell: dict[str, Any], *, seconds: float, least: float) -> bool:
    """Does some work that fills a dict of results, or adds to it why there is no result.

    Args:
        work: gets the dict; what it has filled in before it fails stays there.
        cell: the dict. `left out` says that there was no time, and `error` what went wrong.
        seconds: time that the work may take.
        least: time that must be left to begin at all.

    Returns:
        Whether it began.
    """
    if seconds < least:
        cell["left out"] = f"{max(seconds, 0):.1f} s were left, and it begins with {least:g} s or more"
        return False
    try:
        with limited(seconds):
            work(cell)
    except OutOfTime:
        cell["left out"] = f"it was not done after {seconds:.1f} s"
    except Exception as error:  # Whatever one of them lacks, such as memory, does not end the others.
        lines = str(error).strip().splitlines()
        cell["error"] = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return True
