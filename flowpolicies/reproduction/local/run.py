"""Runs the local benchmark: data, sweep, choice of hyperparameters, reported runs, and results."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import final

from tqdm import tqdm

from flowpolicies.data import generate_dataset
from flowpolicies.locks import FolderInUseError, FolderLock
from flowpolicies.messages import duration, say
from flowpolicies.reproduction.jobs import Outcome, run_side_by_side
from flowpolicies.reproduction.local.benchmark import LocalBenchmark
from flowpolicies.reproduction.local.page import write_page
from flowpolicies.reproduction.local.plan import LocalRun, Places, all_runs, plan_final, plan_sweep
from flowpolicies.reproduction.local.progress import Remaining
from flowpolicies.reproduction.local.results import (
    check_settings,
    choose,
    gather,
    read_results,
    write_results,
)
from flowpolicies.reproduction.local.settings import LocalSettings

ORPHAN_SECONDS = 5.0
"""Seconds between two looks at a training that another process is running."""
NAME = "local"
"""Name of the table on the command line, and of its files."""


def with_steps(benchmark: LocalBenchmark, settings: LocalSettings) -> LocalBenchmark:
    """The benchmark with the steps of the settings."""
    steps = benchmark.steps if settings.steps is None else settings.steps
    online = benchmark.online_steps if settings.online_steps is None else settings.online_steps
    return replace(benchmark, steps=steps, online_steps=online)


def places_of(benchmark: LocalBenchmark, settings: LocalSettings) -> Places:
    """The folders of the runs, the results and the data."""
    changed = with_steps(benchmark, settings)
    is_same = (changed.steps, changed.online_steps) == (benchmark.steps, benchmark.online_steps)
    name = NAME if is_same else f"{NAME}-{changed.steps}-{changed.online_steps}"
    runs = Path("runs/reproduce") / name if settings.runs_dir is None else settings.runs_dir
    results = runs if settings.results_dir is None else settings.results_dir
    return Places(runs=runs, results=results, data=settings.data_dir)


@final
class LocalTable:
    """The benchmark with its results so far, of which the selected part is run.

    Args:
        benchmark: declaration of the whole benchmark.
        settings: the part to run, the number of processes, and the places of the files.

    Raises:
        ValueError: for unknown names, a seed that is that of the sweep, or results of other settings.
    """

    def __init__(self, benchmark: LocalBenchmark, settings: LocalSettings) -> None:
        self.places = places_of(benchmark, settings)
        self.benchmark, self.settings = with_steps(benchmark, settings), settings
        self.seeds = settings.seeds or benchmark.seeds
        replace(self.benchmark, seeds=self.seeds).check()
        benchmark.check_known("dataset", settings.datasets, benchmark.datasets)
        benchmark.check_known("algorithm", settings.algorithms, benchmark.algorithms)
        self.datasets = [name for name in benchmark.datasets if name in (settings.datasets or benchmark.datasets)]
        known = benchmark.algorithms
        self.algorithms = [name for name in known if name in (settings.algorithms or known)]
        self.path = self.places.results / f"{NAME}.csv"
        self.failed: list[str] = []
        self._read()

    def _lock(self) -> FolderLock:
        return FolderLock(self.places.results / f".{NAME}.lock", say)

    def _read(self) -> None:
        """Reads the results, and adds finished runs whose rows a killed command has not written."""
        self.results = read_results(self.path)
        reported = (key.seed for key in self.results if key.stage == "final")
        seeds = sorted({*self.benchmark.seeds, *self.seeds, *reported})
        for dataset in self.benchmark.datasets:
            sweep = plan_sweep(self.benchmark, self.places, dataset, self.benchmark.algorithms)
            self._collect(sweep)
            chosen = choose(self.benchmark, self.results, dataset)
            self._collect(plan_final(self.benchmark, self.places, dataset, chosen, seeds))

    def _collect(self, runs: Iterable[LocalRun]) -> None:
        for run in runs:
            if run.key in self.results:
                check_settings(run, self.results[run.key], self.path)
            elif run.is_done:
                self.results[run.key] = gather(run, math.nan)

    def open_runs(self) -> list[LocalRun]:
        """The selected runs that are not done; those whose hyperparameters are not chosen have the middle value."""
        done = {key.place for key in self.results}
        planned = all_runs(self.benchmark, self.places, self.datasets, self.algorithms, self.seeds)
        return [run for run in planned if run.key.place not in done]

    def estimate(self) -> Remaining:
        """Costs of the selected runs that are not done."""
        return Remaining(self.open_runs(), self.results, self.settings.workers)

    def run(self) -> None:
        """Runs what is selected and not done. The rows of a run are written when it ends, the page in the end.

        Raises:
            KeyboardInterrupt: after Ctrl-C, when the running processes have saved checkpoints.
            ChildProcessError: if runs failed; the others were done.
            FolderInUseError: if another such command is writing to the results.
        """
        with self._lock():
            self._wait_for_orphans()
            self._read()
            say(f"{self.estimate()}")
            try:
                for dataset in self.datasets:
                    self._generate(dataset)
                self._progress = self.estimate()  # The generation of data is no work of the runs.
                with self._bar() as self._shown:
                    for dataset in self.datasets:
                        self._run_dataset(dataset)
            finally:
                self._write()
        if self.failed:
            raise ChildProcessError(
                f"{len(self.failed)} runs failed, and are missing in the results; their logs: {', '.join(self.failed)}"
            )

    def _wait_for_orphans(self) -> None:
        """Waits for the trainings of a command that was killed, which run to their end by themselves."""
        for run in self.open_runs():
            if not run.folder.path.is_dir():
                continue
            for attempt in count():
                try:
                    with run.folder.lock():
                        break
                except FolderInUseError as error:
                    if attempt == 0:
                        say(f"{error} This command waits for it.")
                    time.sleep(ORPHAN_SECONDS)

    def _run_dataset(self, dataset: str) -> None:
        """The sweep on a dataset, the choice, and the reported runs."""
        self._run_all(plan_sweep(self.benchmark, self.places, dataset, self.algorithms))
        chosen = choose(self.benchmark, self.results, dataset)
        mine = {name: value for name, value in chosen.items() if name in self.algorithms}
        self._skip(dataset, set(self.algorithms) - mine.keys())
        self._run_all(plan_final(self.benchmark, self.places, dataset, mine, self.seeds))

    def _generate(self, name: str) -> None:
        dataset = self.benchmark.datasets[name]
        needed = any(run.key.dataset == name for run in self.open_runs())
        if dataset.episodes is not None and needed:
            generate_dataset(
                dataset.address.format(task=dataset.tasks[0]),
                num_episodes=dataset.episodes,
                seed=0,
                workers=self.settings.workers,
                data_dir=self.places.data_of(self.benchmark, name),
            )

    def _skip(self, dataset: str, algorithms: set[str]) -> None:
        """Takes the reported runs of algorithms whose sweep is not complete out of the progress."""
        for run in self.open_runs():
            if run.key.stage == "final" and run.key.dataset == dataset and run.key.algorithm in algorithms:
                self._progress.drop(run)
        for algorithm in sorted(algorithms):
            say(f"{algorithm} on {dataset}: runs of the sweep failed, so that nothing is chosen and reported.")

    def _run_all(self, runs: Sequence[LocalRun]) -> None:
        """Runs what is not done; the results of each run are on disk when the next one begins."""
        todo = {run.name: run for run in runs if run.key not in self.results}
        # Those that take longest come first, so that no process is left alone with one of them at the end.
        ordered = sorted(todo.values(), key=lambda run: (run.key.seed, -self._progress.cost(run)))

        def report(outcome: Outcome) -> None:
            run, result = todo[outcome.job.name], None
            if outcome.code == 0:
                result = self.results[run.key] = gather(run, outcome.core_seconds)
                write_results(self.path, self.results.values())
                told = f"done after {duration(outcome.seconds)}"
            else:
                self.failed.append(str(outcome.job.log))
                told = f"FAILED with exit code {outcome.code}, see {outcome.job.log}"
            self._progress.end(run, result)
            say(f"{run.name}: {told}; {self._progress}")

        jobs = [run.job for run in ordered]
        run_side_by_side(jobs, self.settings.workers, report, threads=1, watch=self._show, watch_seconds=0.2)

    def _bar(self) -> tqdm:
        form = "{percentage:3.0f}%|{bar}| {elapsed}{postfix}"
        return tqdm(total=100, bar_format=form, dynamic_ncols=True, disable=None)  # None: only in a terminal.

    def _show(self) -> None:
        if self._shown.disable:
            return
        self._shown.n = round(100 * self._progress.share(), 1)
        self._shown.set_postfix_str(str(self._progress))

    def write(self) -> None:
        """Writes the table, the page and the figures. The table is left to another command that is writing it."""
        try:
            with self._lock():
                self._write()
        except FolderInUseError:
            self._write_page()

    def _write(self) -> None:
        if self.results:
            write_results(self.path, self.results.values())
        self._write_page()

    def _write_page(self) -> None:
        if not self.results:
            say("No run is done yet.")
            return
        paths = write_page(self.benchmark, self.results, self.places.results)
        say(f"{len(self.results)} runs are in {self.path}, and the results in {', '.join(map(str, paths))}")
