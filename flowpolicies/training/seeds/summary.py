"""What several runs found together: the mean over seeds with its interval, as a table and as a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.training.logs import write_table
from flowpolicies.training.plots import curve, plot_learning_curves
from flowpolicies.training.runs import RunFolder

COLUMNS = ("runs", "step", "seeds", "success", "low", "high", "return", "return_low", "return_high")
"""Header of `summary.csv`: means over the seeds, each with its 95 % bootstrap interval over them."""


def write_summary(parent: Path, name: str, folders: Iterable[tuple[str, RunFolder]]) -> None:
    """Writes `summary.csv` and `learning_curve.png` to the common folder, if there are evaluations.

    Args:
        parent: the common folder.
        name: name of the runs without a sweep, for the figure.
        folders: pairs of a group, such as "guidance_lambda=0.5" ("." without a sweep), and the folder of one seed.
    """
    groups: dict[str, list[list[EvaluationRow]]] = {}
    for group, folder in folders:
        groups.setdefault(name if group == "." else group, []).append(folder.read_evaluations())
    rows = {group: [row for run in runs for row in run] for group, runs in groups.items()}
    found = {group: evaluations for group, evaluations in rows.items() if evaluations}
    if not found:
        return
    write_table(parent / "summary.csv", COLUMNS, [line for item in found.items() for line in _lines(*item)])
    plot_learning_curves(found, parent / "learning_curve.png", title=name if len(found) > 1 else None)


def _lines(group: str, rows: list[EvaluationRow]) -> list[tuple[object, ...]]:
    """One line of the table for each step."""
    nothing = [(math.nan,) * 3] * len({row.step for row in rows})
    reports = not any(math.isnan(row.success) for row in rows)
    successes = [point[1:] for point in curve(rows, "success", 0)] if reports else nothing
    returns = curve(rows, "return", 0)
    return [
        (group, point.x, sum(row.step == point.x for row in rows), *success, *point[1:])
        for success, point in zip(successes, returns, strict=True)
    ]
