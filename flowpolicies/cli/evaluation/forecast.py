"""What `flowpolicies reproduce` says before it runs: how long its runs will take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from flowpolicies.cli.train import parse_train
from flowpolicies.messages import duration
from flowpolicies.reproduction.reproduce import PlannedRun
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training.settings import TrainSettings


def forecast(runs: Sequence[PlannedRun], parallel: int) -> Iterator[str]:
    """Lines about the time of an update of each algorithm, measured here, and of all updates that are left.

    Args:
        runs: runs to be done.
        parallel: number of runs side by side.
    """
    from flowpolicies.benchmarking.step import seconds_per_update

    measured: dict[str, float] = {}
    total = 0.0
    left_out: dict[str, str] = {}
    for run in runs:
        command: Any = parse_train(run.words)
        name = run.preset.algorithm
        kind = f"{name} ({run.preset.suite})"
        if kind not in measured and kind not in left_out:
            try:
                parts = (command.hyperparameters, command.settings, command.sb3_hyperparameters)
                measured[kind] = seconds_per_update(name, *parts)
                yield f"{kind}: {1e3 * measured[kind]:.3g} ms per update"
            except (ValueError, TypeError) as error:  # Such as an algorithm that needs goals or images.
                left_out[kind] = str(error)
                yield f"{kind}: not measured, and left out of the sum: {error}"
        if kind in measured:
            total += measured[kind] * updates_of(command.settings, command.sb3_hyperparameters, steps_done(run))
    if measured:
        together = f" with --parallel {parallel}, if the cores suffice" if parallel > 1 else ""
        yield (
            f"The updates will take about {duration(total / parallel)} on this machine{together}; evaluations and the "
            "steps of environments come on top."
        )


def steps_done(run: PlannedRun) -> int:
    """Number of steps at the newest checkpoint of a run, 0 without one."""
    newest = run.folder.latest()
    found = None if newest is None else re.search(r"\d+", newest.stem)
    return int(found[0]) if found else 0


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
