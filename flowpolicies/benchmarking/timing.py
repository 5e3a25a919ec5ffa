"""Times of several variants of the same work, measured in turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
