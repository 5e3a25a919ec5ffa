"""Runs the runs of the demo side by side, with one progress bar whose remaining time follows from measured costs."""

from __future__ import annotations

import heapq
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import final

from tqdm import tqdm

from flowpolicies.reproduction.costs import Costs
from flowpolicies.reproduction.demo.runs import DemoRun as DemoRun
from flowpolicies.reproduction.demo.runs import work_done
from flowpolicies.reproduction.jobs import Job, Outcome, run_side_by_side

GUESSES = {
    "start": 6.0,
    "bc update": 0.002,
    "bc episode": 0.2,
    "qflow update": 0.01,
    "qflow episode": 0.15,
    "online step": 0.012,
}
"""Seconds that a unit of each kind of work takes on one core, until it is measured; 0.01 for other kinds."""


@final
class Progress:
    """How much of the work of several runs is done, and how long the rest takes.

    Args:
        work: name of each run, in the order in which they start -> units of each kind of work in it.
        workers: number of runs side by side.
        clock: seconds since any moment.
    """

    def __init__(
        self, work: Mapping[str, Mapping[str, int]], workers: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._workers, self._clock = work, workers, clock
        self._done = {name: dict.fromkeys(units, 0) for name, units in work.items()}
        self._changed, self._starting = dict[str, float](), set[str]()
        kinds = sorted({kind for units in work.values() for kind in units})
        self._costs = Costs({kind: GUESSES.get(kind, 0.01) for kind in kinds})

    def start(self, name: str, done: Mapping[str, int]) -> None:
        """Notes that a run starts, which has done some work in an earlier demo."""
        self._done[name], self._changed[name] = dict(done), self._clock()
        self._starting.add(name)

    def observe(self, name: str, done: Mapping[str, int]) -> None:
        """Notes what a run has done by now."""
        new = {kind: units - self._done[name][kind] for kind, units in done.items() if units > self._done[name][kind]}
        if new:
            now = self._clock()
            again = {"start": 1} if name in self._starting and "start" in done else {}  # Also of a run that goes on.
            self._costs.measure({**again, **new}, now - self._changed[name])
            self._starting.discard(name)
            self._done[name], self._changed[name] = dict(done), now

    def end(self, name: str) -> None:
        """Notes that a run has ended; what it left out, such as an evaluation that was made before, costs nothing."""
        self._done[name] = dict(self._total[name])
        self._changed.pop(name, None)

    def seconds_left(self) -> float:
        """Seconds until the last run ends: runs that wait start as soon as another one ends."""
        now = self._clock()
        ends = [max(0.0, self._rest(name) - (now - since)) for name, since in self._changed.items()]
        ends += [0.0] * (self._workers - len(ends))
        heapq.heapify(ends)
        for name in self._total:
            if name not in self._changed and (rest := self._rest(name)) > 0:
                heapq.heappush(ends, heapq.heappop(ends) + rest)
        return max(ends, default=0.0)

    def share_done(self) -> float:
        """Share of the work that is done, between 0 and 1, weighed by what it costs."""
        total = sum(map(self._costs.of, self._total.values()))
        return sum(map(self._costs.of, self._done.values())) / total if total > 0 else 1.0

    def _rest(self, name: str) -> float:
        done = self._done[name]
        return self._costs.of({kind: units - done[kind] for kind, units in self._total[name].items()})


def run_all(runs: Sequence[DemoRun], workers: int) -> None:
    """Runs the commands side by side, with one progress bar for all of them.

    After Ctrl-C the commands save their checkpoints and stop.

    Raises:
        RuntimeError: if a command fails; the other ones are then interrupted as well.
        KeyboardInterrupt: after Ctrl-C.
    """
    by_name = {run.name: run for run in runs}
    progress = Progress({run.name: run.work for run in runs}, workers)
    running = set[str]()
    every = 0.5 if sys.stderr.isatty() else 15.0
    words = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far{postfix}"
    with tqdm(total=1.0, desc="training", bar_format=words, miniters=0, mininterval=every, disable=not runs) as bar:

        def announce(job: Job) -> None:
            progress.start(job.name, work_done(by_name[job.name]))
            running.add(job.name)
            tqdm.write(f"{job.name}: flowpolicies {shlex.join(job.commands[0])}")

        def report(outcome: Outcome) -> None:
            _check(outcome)
            running.remove(outcome.job.name)
            progress.end(outcome.job.name)

        def advance() -> None:
            for name in running:
                progress.observe(name, work_done(by_name[name]))
            left = tqdm.format_interval(progress.seconds_left())
            bar.set_postfix_str(f"about {left} left", refresh=False)
            bar.update(max(0.0, progress.share_done() - bar.n))

        jobs = [run.job for run in runs]
        try:
            run_side_by_side(jobs, workers, report, threads=1, starting=announce, watch=advance, watch_seconds=0.5)
        except KeyboardInterrupt:
            tqdm.write("Interrupted. What was done is saved: the same command continues from here.")
            raise


def _check(outcome: Outcome) -> None:
    """Raises an error with the end of the log if a job failed."""
    job = outcome.job
    if outcome.code != 0:
        tail = "\n".join(job.log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{job.name} failed with exit code {outcome.code}; the end of {job.log}:\n{tail}")
