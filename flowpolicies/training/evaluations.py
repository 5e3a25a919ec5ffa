"""Rows of `evaluations.csv`, with the results of the evaluations during training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

from flowpolicies.artifacts import ArtifactError
from flowpolicies.files import append_text, csv_text
from flowpolicies.training.logs import read_table, write_table

if TYPE_CHECKING:
    from flowpolicies.policies import Evaluation

Phase = Literal["offline", "online"]
"""Part of a run: gradient steps on the dataset, or training while the policy acts in the environment."""

COLUMNS = (
    "phase",
    "step",
    "episodes",
    "success",
    "low",
    "high",
    "return",
    "return_low",
    "return_high",
    "length",
)
"""Header of the file, in the order of the fields of `EvaluationRow`."""


class EvaluationRow(NamedTuple):
    """Results of one evaluation."""

    phase: Phase
    """Phase of training in which the policy was evaluated."""
    step: int
    """Number of steps since the beginning of the phase: gradient steps offline, environment steps online."""
    episodes: int
    """Number of episodes of the evaluation."""
    success: float
    """Success rate between 0 and 1; nan if the environment does not report success."""
    low: float
    """Lower end of the 95 % interval of the success rate."""
    high: float
    """Upper end of the 95 % interval of the success rate."""
    mean_return: float
    """Mean return of the episodes; the column of the file is called `return`."""
    return_low: float
    """Lower end of the 95 % interval of the mean return."""
    return_high: float
    """Upper end of the 95 % interval of the mean return."""
    length: float
    """Mean length of the episodes in environment steps."""

    @classmethod
    def of(cls, phase: Phase, step: int, evaluation: Evaluation) -> EvaluationRow:
        """Makes the row of an evaluation."""
        success = (math.nan,) * 3 if evaluation.successes is None else evaluation.success_rate()
        length = float(evaluation.lengths.mean())
        return cls(phase, step, len(evaluation), *success, *evaluation.mean_return(), length)


def read_evaluations(path: Path) -> list[EvaluationRow]:
    """Reads the rows of a file, without a last one that is unfinished; empty if the file does not exist.

    Raises:
        ArtifactError: if the file has other columns, or a row is damaged.
    """
    table = read_table(path, parse_evaluation)
    if table.columns and table.columns != COLUMNS:
        raise ArtifactError(
            path, f"it has the columns {', '.join(table.columns)}; an evaluations file has {', '.join(COLUMNS)}"
        )
    return [parse_evaluation(row) for row in table.rows]


def parse_evaluation(row: Sequence[str]) -> EvaluationRow:
    """The values of a row of the file.

    Raises:
        ValueError: if they are not those of an evaluation.
    """
    phase, step, episodes, *numbers = row
    if phase not in get_args(Phase):
        raise ValueError(f"the phase must be {' or '.join(get_args(Phase))}, got {phase!r}")
    return EvaluationRow(cast(Phase, phase), int(step), int(episodes), *map(float, numbers))


def append_evaluation(path: Path, row: EvaluationRow) -> None:
    """Appends a row to a file, after the header if the file is new."""
    is_new = not path.exists() or path.stat().st_size == 0
    append_text(path, csv_text([COLUMNS, row] if is_new else [row]))


def write_evaluations(path: Path, rows: Sequence[EvaluationRow]) -> None:
    """Writes the rows to a file, atomically."""
    write_table(path, COLUMNS, rows)
