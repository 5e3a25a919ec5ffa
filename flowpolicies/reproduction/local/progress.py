"""How much of the local benchmark is done, and how long the rest takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import final

from flowpolicies.messages import duration
from flowpolicies.reproduction.costs import Costs
from flowpolicies.reproduction.local.plan import LocalRun, RunKey
from flowpolicies.reproduction.local.results import RunResult
from flowpolicies.training.logs import read_table
from flowpolicies.training.runs import STEP_COLUMNS

PRIOR = 120.0
"""Processor seconds of imagined work that took as long as expected; what was measured outweighs it later."""


@final
class Remaining:
    """Costs of the runs that are left, from the costs of similar runs that have ended, else from estimates.

    A run counts by its cost and not as one of many, because those of some algorithms take ten times as long.

    Args:
        runs: all runs to be done.
        results: finished runs.
        workers: number of runs side by side.
        clock: current time in seconds.
    """

    def __init__(
        self,
        runs: Iterable[LocalRun],
        results: Mapping[RunKey, RunResult],
        workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers, self._clock, self._began = workers, clock, clock()
        self._runs = list(runs)
        self._shares = [share_done(run) for run in self._runs]
        self._ended, self._dropped = set[RunKey](), set[RunKey]()
        self._estimates = {_kind(run.key): sum(run.estimate) for run in self._runs}
        self._costs = Costs(dict.fromkeys(self._estimates, 1.0))
        for result in results.values():
            self._learn(result)

    def _learn(self, result: RunResult) -> None:
        kind, seconds = _kind(result.key), result.origin.core_seconds
        if kind in self._estimates and result.origin.parts == 1 and math.isfinite(seconds):
            self._costs.measure({kind: self._estimates[kind]}, seconds)

    def end(self, run: LocalRun, result: RunResult | None) -> None:
        """Notes that a run has ended; None: it failed."""
        self._ended.add(run.key.place)
        if result is not None:
            self._learn(result)

    def drop(self, run: LocalRun) -> None:
        """Takes a run that cannot be done out of all sums."""
        self._dropped.add(run.key.place)

    def cost(self, run: LocalRun) -> float:
        """Expected processor seconds of a whole run: its estimate, corrected by what runs of its kind have cost."""
        return self._costs.of({_kind(run.key): sum(run.estimate)})

    def work(self) -> tuple[float, float]:
        """Processor seconds that were done since the beginning, and that are left."""
        done = left = 0.0
        for run, before in zip(self._runs, self._shares, strict=True):
            if (place := run.key.place) not in self._dropped:
                cost, share = self.cost(run), 1.0 if place in self._ended else share_done(run)
                done, left = done + cost * (share - before), left + cost * (1 - share)
        return max(done, 0.0), left

    def seconds_left(self) -> float:
        """Expected duration of the rest: its cost, at the pace so far."""
        done, left = self.work()
        elapsed = self._clock() - self._began
        return left * (elapsed + PRIOR / self._workers) / (done + PRIOR)

    def share(self) -> float:
        """Share of the work that is done, between 0 and 1."""
        done, left = self.work()
        return done / (done + left) if left else 1.0

    def __str__(self) -> str:
        runs = len(self._runs) - len(self._dropped)
        share, left = f"{100 * self.share():.0f} % of the work", f"about {duration(self.seconds_left())} left"
        return f"{len(self._ended)}/{runs} runs, {share}, {left}"


def _kind(key: RunKey) -> str:
    """Runs of the same kind have similar costs."""
    return f"{key.stage} {key.dataset} {key.algorithm}"


def share_done(run: LocalRun) -> float:
    """Share of the cost of a run that its log shows as done, at most 0.95: the last evaluation is not in the log."""
    columns, rows, _ = read_table(run.folder.progress)
    share, whole = 0.0, sum(run.estimate) or 1.0
    for cost, phase, steps in zip(run.estimate, STEP_COLUMNS, ("steps", "online_steps"), strict=True):
        column = STEP_COLUMNS[phase]
        if column in columns and run.values[steps]:
            at = columns.index(column)
            done = max((float(row[at]) for row in rows if at < len(row) and row[at]), default=0.0)
            share += cost / whole * min(1.0, done / run.values[steps])
    return min(share, 0.95)
