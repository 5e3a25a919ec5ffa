"""What `flowpolicies reproduce` says before it runs: how long its runs will take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from flowpolicies.cli.train import parse_train
from flowpolicies.messages import duration
from flowpolicies.reproduction.reproduce import PlannedRun


def forecast(runs: Sequence[PlannedRun], parallel: int) -> Iterator[str]:
    """Lines about the time of an update of each algorithm, measured here, and of all updates that are left.

    Args:
        runs: runs to be done.
        parallel: number of runs side by side.
    """
    from flowpolicies.benchmarking.forecast import seconds_per_update, updates_of

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
