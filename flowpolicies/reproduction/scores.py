"""What the runs of a published table have found, and where they were not what the paper ran."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from flowpolicies.algorithms import get_algorithm
from flowpolicies.data import normalized_score
from flowpolicies.data.dataset.transforms import REFERENCE
from flowpolicies.reproduction.published import PublishedTable
from flowpolicies.reproduction.reproduce import Run
from flowpolicies.training.settings import Knobs, TrainSettings


class Score(NamedTuple):
    """What runs of a cell have found so far."""

    mean: float
    """Mean over tasks of the mean over seeds, see `score_of`."""
    std: float
    """Standard deviation over seeds of the mean over tasks; nan unless there are two seeds with all tasks."""
    runs: int
    """How many runs it is of."""


def score_of(run: Run, table: PublishedTable) -> float:
    """The mean of its last evaluations in the table's phase; nan without any.

    D4RL's score where the data have reference returns, else success in percent, or the return if it is not known.
    """
    rows = [row for row in run.folder.read_evaluations() if row.phase == table.phase]
    rows = rows[-table.last[run.preset.suite] :]
    if not rows:
        return math.nan
    provenance = run.folder.read_config()["dataset"].get("provenance", {})
    if REFERENCE in provenance:
        return float(normalized_score(provenance, np.mean([row.mean_return for row in rows])))
    return float(np.mean([row.mean_return if math.isnan(row.success) else 100 * row.success for row in rows]))


def collect(table: PublishedTable, runs: Sequence[Run]) -> dict[tuple[str, str], Score]:
    """Scores by row and column, of the runs that are done."""
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
    return Score(mean, std, sum(len(seeds) for seeds in tasks.values()))


MATTERS = {
    *("dataset", "env", "frame_stack", "p_aug", "reward_transform", "rotate_every", "seed"),
    *("steps", "online_steps", "n_envs", "eval_every", "eval_episodes"),
}
"""Fields of `TrainSettings` that make a run what it is; the others are this machine's."""


def deviations(run: Run, table: PublishedTable, extra: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """What a run that is done had otherwise than its preset, its table, and the defaults beside them say.

    Args:
        extra: values that are meant to be others.
    """
    record, preset = run.folder.read_config(), run.preset
    settings = {name: value for name, value in dataclasses.asdict(TrainSettings()).items() if name in MATTERS}
    beside = settings | dataclasses.asdict(Knobs()) | dataclasses.asdict(get_algorithm(preset.algorithm).Config())
    merged = beside | preset.fields() | dict(table.options) | {"seed": run.seed}
    merged |= {name: value for name, value in extra.items() if name in beside}
    should = json.loads(json.dumps(merged))
    had = {**record["settings"], **record["knobs"], **record["hyperparameters"]}
    # A run of an older version has no record of the fields that have come since.
    return {name: had[name] for name, value in should.items() if name in had and had[name] != value}
