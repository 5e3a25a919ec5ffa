"""Folders of finished runs, which were not trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.training.runs import RunFolder

TASK = "ogbench:cube-single-play-singletask-task{}-v0"


def make_run(
    parent: Path, algorithm: str, task: int, seed: int, successes: Sequence[float], **hyperparameters: Any
) -> Path:
    """Writes the folder of a run with evaluations at steps 100, 200, ..."""
    folder, address = RunFolder(parent / f"{algorithm}-task{task}-seed{seed}"), TASK.format(task)
    record = {"algorithm": algorithm, "env": address, "seed": seed, "dataset": {"address": address}}
    folder.write_config({**record, "hyperparameters": hyperparameters})
    for number, success in enumerate(successes, 1):
        interval = (math.nan,) * 2 if math.isnan(success) else (max(0, success - 0.1), min(1, success + 0.1))
        mean = -10.0 if math.isnan(success) else 100 * success - 200
        row = EvaluationRow("offline", 100 * number, 50, success, *interval, mean, mean - 1, mean + 1, 9.0)
        folder.add_evaluation(row)
    return folder.path


def make_runs(parent: Path) -> Path:
    """Runs of two algorithms on two tasks with three seeds each; fql is better by 20 % on both tasks."""
    for task in (1, 2):
        for seed in (0, 1, 2):
            last = 0.3 + 0.1 * task + 0.05 * seed
            make_run(parent, "bc", task, seed, [0.1, last])
            make_run(parent, "fql", task, seed, [0.2, last + 0.2])
    return parent
