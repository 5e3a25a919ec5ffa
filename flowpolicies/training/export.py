"""The policy of a run as a folder for others, with a model card made from the record of the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowpolicies.policies import Evaluation, FlowPolicy, Interval
from flowpolicies.policies.sharing.card import EvaluationSummary
from flowpolicies.training.callbacks import evaluation_seed
from flowpolicies.training.evaluations import EvaluationRow, Phase
from flowpolicies.training.runs import RunFolder

RECORDED = ("algorithm", "env", "seed", "commands", "preset", "hyperparameters", "sb3_hyperparameters", "settings")
"""Keys of the record of a run that are copied to `results.json`."""


def export_run(
    run: RunFolder,
    out: str | Path,
    *,
    name: str | None = None,
    license: str | None = None,
    evaluation: Sequence[Evaluation] = (),
) -> Path:
    """Writes the policy of a run to a folder, as `FlowPolicy.save_pretrained`; data and training are those of the run.

    Args:
        run: folder of the run.
        out: path of the new folder.
        name: name in the model card; None: the name of the new folder.
        license: identifier of the license of the weights, such as "mit"; None: the card says "not stated".
        evaluation: evaluations of the policy; none: the last one of the run, if it was made after the last step.

    Raises:
        FileNotFoundError: if the folder is not that of a run, or has no policy file.
        FileExistsError: if the new folder holds other files.
        ArtifactError: if a file of the run is damaged.
    """
    record = run.read_config()
    if not run.policy.is_file():
        raise FileNotFoundError(
            f"the run in '{run.path}' has no {run.policy.name}, which is written when it ends. Continue it with "
            "--resume."
        )
    steps = _steps(record)
    last = next(reversed(run.read_evaluations()), None)
    is_final = last is not None and steps is not None and last.step == steps.get(last.phase) == [*steps.values()][-1]
    has_ended = is_final or run.model.is_file()
    known = [_summary(last, record)] if last is not None and is_final else []
    return FlowPolicy.load(run.policy, "cpu").save_pretrained(
        out,
        name=name,
        license=license,
        evaluation=evaluation or known,
        dataset=record.get("dataset"),
        training={
            **{key: record[key] for key in RECORDED if key in record},
            "steps": steps if has_ended else None,
            "software": record.get("software"),
            "hardware": record.get("hardware"),
        },
    )


def _steps(record: Mapping[str, Any]) -> dict[Phase, int] | None:
    """Phase -> number of its steps, for the phases that the run has, in their order."""
    settings = record.get("settings") or {}
    counts: dict[Phase, int] = {"offline": settings.get("steps", 0), "online": settings.get("online_steps", 0)}
    return {phase: count for phase, count in counts.items() if count} or None


def _summary(row: EvaluationRow, record: Mapping[str, Any]) -> EvaluationSummary:
    seed = record.get("seed")
    success = None if math.isnan(row.success) else Interval(row.success, row.low, row.high)
    return EvaluationSummary(
        environment=record.get("env"),
        episodes=row.episodes,
        success=success,
        mean_return=Interval(row.mean_return, row.return_low, row.return_high),
        length=row.length,
        seed=None if seed is None else evaluation_seed(seed, row.phase, row.step),
        deterministic=False,
    )
