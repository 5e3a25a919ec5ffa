"""The rows of `local.csv`, the choice of hyperparameters, and the scores of runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast, final

import numpy as np

from flowpolicies.artifacts import ArtifactError
from flowpolicies.comparison.statistics import interquartile_mean
from flowpolicies.files import atomic_write, csv_text
from flowpolicies.policies.intervals import Interval, mean_interval
from flowpolicies.reproduction.local.benchmark import LocalBenchmark
from flowpolicies.reproduction.local.plan import LocalRun, RunKey, Stage
from flowpolicies.training.evaluations import COLUMNS, EvaluationRow, Phase, parse_evaluation
from flowpolicies.training.logs import read_table

TableCell = tuple[str, int, str]
"""Dataset, task and algorithm."""


class Provenance(NamedTuple):
    """Where the numbers of a run come from; columns of `local.csv`."""

    fingerprint: str
    """Hash of the settings; see `LocalRun.fingerprint`."""
    core_seconds: float
    """Processor time; nan if the run ended unobserved. Of a run with several parts, that of the last one."""
    parts: int
    """Number of commands that the run took: more than one if it was interrupted."""
    commit: str
    """Commit of the code."""
    hardware: str
    """Platform, processor, and number of cores."""


@final
class RunResult(NamedTuple):
    """A finished run."""

    key: RunKey
    """What distinguishes the run from the others."""
    origin: Provenance
    """Where its numbers come from."""
    evaluations: tuple[EvaluationRow, ...]
    """Its evaluations in the order of its steps."""

    def phase(self, phase: Phase) -> list[EvaluationRow]:
        """The evaluations of one phase."""
        return [row for row in self.evaluations if row.phase == phase]

    def score(self, phase: Phase, last: int) -> float:
        """Mean success of the last evaluations of a phase, between 0 and 1; nan without evaluations."""
        rows = self.phase(phase)[-last:]
        return float(np.mean([row.success for row in rows])) if rows else float("nan")


HEADER = (*RunKey._fields, *COLUMNS, *Provenance._fields)


def gather(run: LocalRun, core_seconds: float) -> RunResult:
    """The result of a run that is done, from its folder.

    Raises:
        ValueError: if the run had other settings than it would have now, or its environment reports no success.
    """
    if different := run.differences():
        raise ValueError(
            f"the run in '{run.folder.path}' had other settings: "
            f"{', '.join(f'{name}={value}' for name, value in different.items())}. Choose another --runs-dir, or move "
            "or delete its folder."
        )
    record, rows = run.folder.read_config(), run.folder.read_evaluations()
    if not rows or any(np.isnan(row.success) for row in rows):
        raise ValueError(f"the run in '{run.folder.path}' has no success rates; the benchmark compares nothing else.")
    hardware = record["hardware"]
    text = f"{hardware['platform']}, {hardware['processor']}, {hardware['cpu_count']} cores"
    commit = record["software"].get("flowpolicies_commit", record["software"]["flowpolicies"])
    origin = Provenance(run.fingerprint, round(core_seconds, 1), len(record["commands"]), commit, text)
    return RunResult(run.key, origin, tuple(rows))


def check_settings(run: LocalRun, result: RunResult, path: Path) -> None:
    """Raises a ValueError if the result of a run, read from a file, is of other settings than it would have now."""
    if result.origin.fingerprint != run.fingerprint:
        raise ValueError(
            f"'{path}' has results of other settings, such as those of {run.name}. Choose another --results-dir, or "
            "move or delete the file."
        )


def read_results(path: Path) -> dict[RunKey, RunResult]:
    """Reads `local.csv`; empty if the file does not exist.

    Raises:
        ArtifactError: if the file has other columns, or a row is damaged.
    """
    table = read_table(path, _parse)
    if table.columns and table.columns != HEADER:
        raise ArtifactError(path, "it has other columns than the results of the local benchmark")
    found: dict[RunKey, RunResult] = {}
    for key, row, origin in map(_parse, table.rows):
        before = found[key].evaluations if key in found else ()
        found[key] = RunResult(key, origin, (*before, row))
    return found


def _parse(row: Sequence[str]) -> tuple[RunKey, EvaluationRow, Provenance]:
    if len(row) != len(HEADER):
        raise ValueError(f"a row has {len(HEADER)} values, got {len(row)}")
    first, end = len(RunKey._fields), len(RunKey._fields) + len(COLUMNS)
    stage, dataset, task, algorithm, setting, seed = row[:first]
    fingerprint, seconds, parts, commit, hardware = row[end:]
    if stage not in ("sweep", "final"):
        raise ValueError(f"the stage must be sweep or final, got {stage!r}")
    key = RunKey(cast(Stage, stage), dataset, int(task), algorithm, setting, int(seed))
    return key, parse_evaluation(row[first:end]), Provenance(fingerprint, float(seconds), int(parts), commit, hardware)


def write_results(path: Path, results: Iterable[RunResult]) -> None:
    """Writes `local.csv` atomically, with a row for each evaluation."""
    rows = [(*one.key, *row, *one.origin) for one in sorted(results) for row in one.evaluations]
    with atomic_write(path) as file:
        file.write(csv_text([HEADER, *rows]).encode())


def choose(benchmark: LocalBenchmark, results: Mapping[RunKey, RunResult], dataset: str) -> dict[str, float]:
    """Algorithm -> chosen value of its hyperparameter, for the algorithms whose sweep on the dataset is complete.

    The best value has the largest mean success of the last evaluations; of equal ones, the largest mean success of all
    evaluations, then the largest mean return of the last ones, then the value nearest to the middle of the sweep.
    """
    task, chosen = benchmark.datasets[dataset].tasks[0], dict[str, float]()
    for name, one in benchmark.algorithms.items():
        keys = [RunKey("sweep", dataset, task, name, one.setting(v), benchmark.sweep_seed) for v in one.values]
        if all(key in results for key in keys):
            ranks = [_rank(results[key], benchmark.last) for key in keys]
            middle = len(keys) // 2
            best = max(range(len(keys)), key=lambda i: (*ranks[i], -abs(i - middle)))
            chosen[name] = one.values[best]
    return chosen


def _rank(result: RunResult, last: int) -> tuple[float, float, float]:
    rows = result.phase("offline")
    everything, returns = (np.mean([row.success for row in rows]), np.mean([row.mean_return for row in rows[-last:]]))
    return result.score("offline", last), float(everything), float(returns)


class Scores:
    """Scores of the reported runs, by cells of the table. What was not run is missing, and nothing takes its place.

    Args:
        benchmark: declaration of the benchmark.
        results: all finished runs.
    """

    def __init__(self, benchmark: LocalBenchmark, results: Mapping[RunKey, RunResult]) -> None:
        self.benchmark = benchmark
        self.everything = list(results.values())
        self.results = [one for one in self.everything if one.key.stage == "final"]
        self.seeds = tuple(sorted({*benchmark.seeds, *(one.key.seed for one in self.results)}))

    def cells(self) -> Iterator[tuple[str, int]]:
        """The tasks with at least one run, as dataset and task, in the order of the benchmark."""
        ran = {(one.key.dataset, one.key.task) for one in self.results}
        for name, dataset in self.benchmark.datasets.items():
            yield from ((name, task) for task in dataset.tasks if (name, task) in ran)

    def of(self, cell: TableCell, phase: Phase) -> dict[int, float]:
        """Seed -> score of the runs of a cell that have evaluations of the phase."""
        runs = [one for one in self.results if (one.key.dataset, one.key.task, one.key.algorithm) == cell]
        return {one.key.seed: one.score(phase, self.benchmark.last) for one in runs if one.phase(phase)}

    def mean(self, cell: TableCell, phase: Phase) -> Interval | None:
        """Mean over the seeds of a cell with its bootstrap interval; None if there are no runs.

        Both bounds are nan for one seed, which says nothing about others.
        """
        values = np.array(list(self.of(cell, phase).values()))
        if len(values) == 1:
            return Interval(float(values[0]), float("nan"), float("nan"))
        return mean_interval(values) if len(values) else None

    def missing(self, algorithm: str, phase: Phase) -> int:
        """Number of runs of an algorithm that are missing on the tasks that have runs of any algorithm."""
        return sum(len(set(self.seeds) - set(self.of((*cell, algorithm), phase))) for cell in self.cells())

    def iqm(self, algorithm: str, phase: Phase) -> Interval | None:
        """Interquartile mean over tasks and seeds with its stratified bootstrap interval; None if runs are missing."""
        groups = [np.array(list(self.of((*cell, algorithm), phase).values())) for cell in self.cells()]
        return interquartile_mean(groups) if groups and not self.missing(algorithm, phase) else None

    def core_hours(self, algorithm: str | None = None) -> float:
        """Processor time of all runs of an algorithm, or of the benchmark, as far as it was observed."""
        chosen = [one for one in self.everything if algorithm in (None, one.key.algorithm)]
        return float(np.nansum([one.origin.core_seconds for one in chosen])) / 3600
