"""Times of several variants of the same work, measured in turns, and measurements that end in time."""

from __future__ import annotations

import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, final

MIN_ROUNDS, MAX_ROUNDS = 5, 60
"""Smallest and largest number of rounds."""

FEWEST, SLOW = 2, 20.0
"""Smallest number of rounds of work that has taken so many seconds."""

CHUNK = 0.1
"""Seconds that a variant runs per round, so that reading the clock and filling caches do not count."""


class Durations(NamedTuple):
    """Times of one variant, in milliseconds per repetition."""

    minimum: float
    median: float
    rounds: int

    def divided_by(self, parts: int) -> Durations:
        """Times of one of so many equal parts of the work."""
        return self._replace(minimum=self.minimum / parts, median=self.median / parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"min_ms": round(self.minimum, 4), "median_ms": round(self.median, 4), "rounds": self.rounds}


def interleaved(
    variants: Mapping[str, Callable[[int], object]], *, seconds: float = 10.0, chunk: float = CHUNK
) -> dict[str, Durations]:
    """Measures variants in rounds, in which each runs once, in the opposite order in every other round.

    A change in the speed of the machine thus affects all of them, and none always follows the same other one.

    Args:
        variants: name -> function that repeats the work a given number of times.
        seconds: time for all rounds together; there are at least `MIN_ROUNDS` of them, or `FEWEST` of slow work.
        chunk: time in seconds that a variant runs per round at least; less if `seconds` is less than ten times as long.
    """
    chunk = min(chunk, seconds / 10)
    counts = {name: _repetitions(run, chunk) for name, run in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    names, start, number, elapsed = list(variants), time.perf_counter(), 0, 0.0
    while number < (FEWEST if elapsed > SLOW else MIN_ROUNDS) or (elapsed < seconds and number < MAX_ROUNDS):
        for name in names if number % 2 == 0 else reversed(names):
            times[name].append(_milliseconds(variants[name], counts[name]))
        number, elapsed = number + 1, time.perf_counter() - start
    return {name: Durations(min(each), statistics.median(each), len(each)) for name, each in times.items()}


def _repetitions(run: Callable[[int], object], chunk: float) -> int:
    """How often the work is repeated per round. The first calls are not counted, which compile and fill caches."""
    run(2)
    return max(1, math.ceil(1e3 * chunk / max(_milliseconds(run, 1), 1e-3)))


def _milliseconds(run: Callable[[int], object], count: int) -> float:
    start = time.perf_counter()
    run(count)
    return 1e3 * (time.perf_counter() - start) / count


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
