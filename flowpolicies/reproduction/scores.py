"""Scores of the runs of a published table, and settings in which they differ from the published ones."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from flowpolicies import data
from flowpolicies.comparison.runs import NamedRun
from flowpolicies.comparison.scores import RunScores, ScoreTable
from flowpolicies.comparison.statistics import interquartile_mean, mean_over_tasks
from flowpolicies.data.names import REFERENCE
from flowpolicies.moved import moved_names
from flowpolicies.policies.intervals import Interval
from flowpolicies.reproduction.published import PublishedTable
from flowpolicies.reproduction.reproduce import PlannedRun
from flowpolicies.shell.catalog import config_of
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training.settings import TrainSettings


class Score(NamedTuple):
    """Score of the finished runs of one row and one column."""

    mean: float
    """Mean over tasks of the mean over seeds; see `score_of` for the unit."""
    std: float
    """Standard deviation over seeds of the mean over tasks; nan unless at least two seeds have all tasks."""
    runs: int
    """Number of runs that the score is the mean of."""
    interval: Interval
    """Mean with its 95 % stratified bootstrap interval over seeds; the bounds are nan if a task has one run."""
    iqm: Interval
    """Interquartile mean over tasks and seeds with its interval, as that of the mean."""

    def numbers(self) -> tuple[float, ...]:
        """The cells of `results.csv`: mean, deviation, number of runs, and the two intervals."""
        return self.mean, self.std, self.runs, self.interval.low, self.interval.high, *self.iqm


def score_of(run: PlannedRun, table: PublishedTable) -> float:
    """Mean of the run's last evaluations in the table's phase; nan if there are none.

    The unit is D4RL's normalised score if the dataset has reference returns, otherwise the success rate in percent, or
    the return if the environment does not report success.
    """
    rows = [row for row in run.folder.read_evaluations() if table.phase in ("end", row.phase)]
    rows = rows[-table.last[run.preset.suite] :]
    if not rows:
        return math.nan
    provenance = run.folder.read_config()["dataset"].get("provenance", {})
    if REFERENCE in provenance:
        return float(data.normalized_score(provenance, np.mean([row.mean_return for row in rows])))
    return float(np.mean([row.mean_return if math.isnan(row.success) else 100 * row.success for row in rows]))


def read_scores(table: PublishedTable, runs: Sequence[PlannedRun]) -> dict[tuple[str, str], Score]:
    """(row, column) -> score of the runs that are done."""
    cells: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for run in runs:
        if run.is_done and not math.isnan(score := score_of(run, table)):
            cells.setdefault((run.row, run.column), {}).setdefault(run.task, {})[run.seed] = score
    return {key: _summarise(tasks) for key, tasks in cells.items()}


def _summarise(tasks: Mapping[str, Mapping[int, float]]) -> Score:
    mean = float(np.mean([np.mean(list(seeds.values())) for seeds in tasks.values()]))
    complete = set[int].intersection(*(set(seeds) for seeds in tasks.values()))
    means = [float(np.mean([seeds[seed] for seeds in tasks.values()])) for seed in sorted(complete)]
    std = float(np.std(means)) if len(means) > 1 else math.nan
    groups = [np.array(list(seeds.values())) for seeds in tasks.values()]
    return Score(mean, std, sum(map(len, groups)), mean_over_tasks(groups), interquartile_mean(groups))


def compare_columns(table: PublishedTable, runs: Sequence[PlannedRun]) -> ScoreTable:
    """The scores of the runs that are done, by column, task and seed."""
    scored = [(run, score_of(run, table)) for run in runs if run.is_done]
    known = [(run, score) for run, score in scored if not math.isnan(score)]
    return ScoreTable(
        "score",
        [
            RunScores(
                NamedRun(run.folder.path, run.column),
                run.column,
                run.preset.algorithm,
                f"{run.row} {run.task}",
                run.seed,
                {"score": score},
            )
            for run, score in known
        ],
    )


MATTERS = {
    *("dataset", "env", "frame_stack", "p_aug", "reward_transform", "rotate_every", "seed"),
    *("steps", "online_steps", "n_envs", "eval_every", "eval_episodes"),
}
"""Fields of `TrainSettings` that influence the result of a run; the other ones concern the machine, files and logs."""


def deviations(
    run: PlannedRun, table: PublishedTable, extra: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Fields, and their values, in which a finished run differs from its preset, its table and the defaults.

    Args:
        extra: fields that are meant to have these values instead.
    """
    record, preset = run.folder.read_config(), run.preset
    settings = {name: value for name, value in dataclasses.asdict(TrainSettings()).items() if name in MATTERS}
    beside = settings | dataclasses.asdict(SB3Hyperparameters()) | dataclasses.asdict(config_of(preset.algorithm)())
    merged = beside | preset.fields() | dict(table.options) | {"seed": run.seed}
    merged |= {name: value for name, value in extra.items() if name in beside}
    should = json.loads(json.dumps(merged))
    had = {**record["settings"], **record["sb3_hyperparameters"], **record["hyperparameters"]}
    # The record of a run by an older version does not have the fields that were added since.
    return {name: had[name] for name, value in should.items() if name in had and had[name] != value}


__getattr__ = moved_names(__name__, {"collect": "flowpolicies.reproduction.scores:read_scores"})
