"""Rows of `evaluations.csv`: what one evaluation during training found."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

from flowpolicies.files import atomic_write, csv_text
from flowpolicies.policies import Evaluation

Phase = Literal["offline", "online"]

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
"""Header of the file; the fields of `EvaluationRow` in the same order."""


class EvaluationRow(NamedTuple):
    """One evaluation."""

    phase: Phase
    """Whether the policy was training offline or online."""
    step: int
    """Steps within the phase: gradient steps offline, environment steps online."""
    episodes: int
    """Number of episodes."""
    success: float
    """Share of successful episodes; nan if the environment does not report success."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of its 95 % interval."""
    mean_return: float
    """Mean return; the column is called `return`."""
    return_low: float
    """Lower end of its 95 % interval."""
    return_high: float
    """Upper end of its 95 % interval."""
    length: float
    """Mean episode length, in environment steps."""

    @classmethod
    def of(cls, phase: Phase, step: int, evaluation: Evaluation) -> EvaluationRow:
        """The row of an evaluation."""
        success = (math.nan,) * 3 if evaluation.successes is None else evaluation.success_rate()
        length = float(evaluation.lengths.mean())
        return cls(phase, step, len(evaluation), *success, *evaluation.mean_return(), length)


def read_evaluations(path: Path) -> list[EvaluationRow]:
    """The rows of a file; none if there is no file.

    Raises:
        ValueError: if it has other columns.
    """
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if tuple(header) != COLUMNS:
        raise ValueError(f"'{path}' has the columns {', '.join(header)}; an evaluations file has {', '.join(COLUMNS)}.")
    return [_parse(row) for row in rows]


def _parse(row: Sequence[str]) -> EvaluationRow:
    phase, step, episodes, *numbers = row
    return EvaluationRow(cast(Phase, phase), int(step), int(episodes), *map(float, numbers))


def append_evaluation(path: Path, row: EvaluationRow) -> None:
    """Adds a row, with a header if it is the first."""
    with open(path, "a", newline="") as file:
        file.write(csv_text([row] if file.tell() else [COLUMNS, row]))


def write_evaluations(path: Path, rows: Sequence[EvaluationRow]) -> None:
    """Replaces the file, atomically."""
    with atomic_write(path) as file:
        file.write(csv_text([COLUMNS, *rows]).encode())
