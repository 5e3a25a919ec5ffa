"""Results of the demo: counts of successes, and the table that is printed."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from flowpolicies.policies.evaluation import Interval, success_interval
from flowpolicies.reproduction.demo.runs import DemoRun, address, bc_report, folder_of, steps_of_evaluations
from flowpolicies.reproduction.demo.settings import DemoSettings
from flowpolicies.training.evaluations import EvaluationRow, Phase

LABELS = {"bc": "BC", "qflow offline": "Q-Flow, offline", "qflow fine-tuned": "Q-Flow, fine-tuned"}
"""Names of the entries of the results in the table and the pictures."""

UNSEEN: Literal["unseen"] = "unseen"
"""Key of the results from data without the start of the task."""

Counts = dict[str, float]
"""Successes, number of episodes, and mean length of these in steps."""


def gather_results(settings: DemoSettings, runs: Sequence[DemoRun]) -> dict[str, Any]:
    """Counts of BC, and of Q-Flow before and after fine-tuning, for each task and for the unseen start."""
    results: dict[str, Any] = {label: {} for label in LABELS}
    for task, row in zip(settings.tasks, bc_rows(settings, settings.steps), strict=True):
        results["bc"][str(task)] = _counts(row)
    keys: list[Any] = [*settings.tasks, *([UNSEEN] if settings.unseen else [])]
    for key in keys:
        rows = folder_of(settings, key).read_evaluations()
        phases: tuple[tuple[str, Phase], ...] = (("qflow offline", "offline"), ("qflow fine-tuned", "online"))
        for label, phase in phases:
            last = [row for row in rows if row.phase == phase][-1:]
            results[label] |= {str(key): _counts(row) for row in last}
    results["commands"] = [shlex.join(("flowpolicies", *command)) for run in runs for command in run.commands]
    return results


def bc_rows(settings: DemoSettings, step: int) -> list[EvaluationRow]:
    """The evaluation of BC in each task after a number of gradient steps."""
    found = json.loads(bc_report(settings, step).read_text())["environments"]
    rows = []
    for task in settings.tasks:
        one = found[address(settings, task)]
        success, returns = one["success"], one["return"]
        rows.append(
            EvaluationRow("offline", step, one["episodes"], *_interval(success), *_interval(returns), one["length"])
        )
    return rows


def _interval(found: dict[str, float]) -> Interval:
    return Interval(found["mean"], found["low"], found["high"])


def curves(settings: DemoSettings) -> dict[str, list[EvaluationRow]]:
    """Label -> evaluations during training: of Q-Flow and BC in all tasks, and of Q-Flow from the unseen start."""
    qflow = [row for task in settings.tasks for row in folder_of(settings, task).read_evaluations()]
    bc = [row for step in steps_of_evaluations(settings) for row in bc_rows(settings, step)]
    unseen = {"Q-Flow,\nunseen start": folder_of(settings, UNSEEN).read_evaluations()} if settings.unseen else {}
    return {"Q-Flow": qflow, "BC": bc, **unseen}


def _counts(row: EvaluationRow) -> Counts:
    return {"successes": round(row.success * row.episodes), "episodes": row.episodes, "length": row.length}


def success_of(counts: Counts) -> Interval:
    """Success rate with its 95 % Wilson interval."""
    return success_interval(int(counts["successes"]), int(counts["episodes"]))


def pooled(settings: DemoSettings, results: Mapping[str, Any], label: str) -> Counts:
    """Counts over the episodes of all tasks, without those from the unseen start."""
    cells = [results[label][str(task)] for task in settings.tasks]
    length = sum(cell["length"] for cell in cells) / len(cells)
    return {name: sum(cell[name] for cell in cells) for name in ("successes", "episodes")} | {"length": length}


def make_table(settings: DemoSettings, results: Mapping[str, Any]) -> Table:
    """Table of the success rates in percent with their 95 % intervals, and of the mean episode lengths in steps."""
    labels = [label for label in LABELS if results[label]]
    table = Table(title=f"{settings.dataset}: success in % [95 % interval], mean episode length in steps")
    table.add_column("task")
    for label in labels:
        table.add_column(LABELS[label], justify="right")
    for task in map(str, settings.tasks):
        table.add_row(task, *(_cell(results[label].get(task)) for label in labels))
    in_all = [label for label in labels if all(str(task) in results[label] for task in settings.tasks)]
    overall = [_cell(pooled(settings, results, label)) if label in in_all else "" for label in labels]
    table.add_row("all", *overall, style="bold", end_section=True)
    if settings.unseen:
        cells = [_cell(results[label].get(UNSEEN)) for label in labels]
        table.add_row(f"{settings.unseen_task}, unseen start", *cells)
    return table


def _cell(counts: Counts | None) -> str:
    if counts is None:
        return ""
    mean, low, high = (round(100 * value) for value in success_of(counts))
    return f"{mean} [{low}, {high}], {counts['length']:.0f}"


def as_text(table: Table) -> str:
    """The table as lines of text."""
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def as_markdown(table: Table) -> str:
    """The table as Markdown, as in the README."""
    heads = [str(column.header) for column in table.columns]
    rows = zip(*(list(column.cells) for column in table.columns), strict=True)
    lines = [heads, ["---"] * len(heads), *(list(map(str, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
