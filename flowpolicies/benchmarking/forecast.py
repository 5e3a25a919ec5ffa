"""How long the updates of a training run will take on this machine: the measured time of one, times their number."""

from __future__ import annotations

import dataclasses
from typing import Any

from flowpolicies.algorithms import get_algorithm
from flowpolicies.benchmarking.flops import period_of
from flowpolicies.benchmarking.timing import interleaved
from flowpolicies.benchmarking.workloads import Workload, random_dataset
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training.settings import TrainSettings


def seconds_per_update(
    algorithm: str,
    hyperparameters: Any,
    settings: TrainSettings,
    sb3_hyperparameters: SB3Hyperparameters,
    *,
    seconds: float = 0.5,
) -> float:
    """Time of one update in seconds, with the sampling of its batch, as the minimum of several rounds.

    It is measured on random data with observations and actions of the size of `Workload`, because the data of a run
    need not be on this machine, and with the first updates of the run.

    Args:
        algorithm: name of the algorithm.
        hyperparameters: an instance of its `Config`, or of a class with the same fields.
        settings: settings of the run.
        sb3_hyperparameters: hyperparameters of Stable-Baselines3.
        seconds: time for all rounds together.
    """
    cls = get_algorithm(algorithm)
    size = Workload(algorithm=algorithm)
    model = cls.from_config(
        cls.Config(**vars(hyperparameters)),
        dataset=random_dataset(size.rows, size.observation_dim, size.action_dim),
        seed=0,
        device=settings.device,
        compile=settings.compile,
        precision=settings.precision,
        **dataclasses.asdict(sb3_hyperparameters),
    )
    period = period_of(model)
    times = interleaved({algorithm: lambda count: model.train(count * period, model.batch_size)}, seconds=seconds)
    return times[algorithm].divided_by(period).minimum / 1e3


def updates_of(settings: TrainSettings, sb3_hyperparameters: SB3Hyperparameters, done: int = 0) -> int:
    """Number of updates that a run still makes.

    Args:
        done: number of steps of both phases that the run has done.
    """
    per_step = max(1, sb3_hyperparameters.gradient_steps) / max(1, sb3_hyperparameters.train_freq)
    per_step = 1.0 if sb3_hyperparameters.gradient_steps < 0 else per_step
    offline = max(0, settings.steps - done)
    online = max(0, settings.online_steps - max(0, done - settings.steps))
    return round(offline + per_step * online)
