"""The section about numbers that were logged during training."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowpolicies.comparison.results import is_results
from flowpolicies.comparison.runs import NamedRun
from flowpolicies.pages.blocks import ChartBlock, PageBlock, Section, TextBlock
from flowpolicies.report import charts
from flowpolicies.report.curves import switch_of
from flowpolicies.report.gather import Gathered, count, listed
from flowpolicies.training.logs import read_table
from flowpolicies.training.runs import STEP_COLUMNS, RunFolder

SHOWN = re.compile(r"train/(.+/loss|critic/q_mean)|validation/.+")
"""Columns of the log that are drawn; the others are in progress.csv."""
MOST_CHARTS = 9
"""Largest number of columns that are drawn."""
MOST_POINTS = 200
"""Largest number of points of a line."""


def losses_section(gathered: Gathered) -> Section:
    """A chart for each loss, with a line for each run."""
    found: dict[str, list[dict[str, Any]]] = {}
    without = []
    runs = [run for run in gathered.runs if not is_results(run.path) and run.name in gathered.colors]
    for run in runs:
        log = dict(logged(run, SHOWN))
        if not log:
            without.append(gathered.names[run.path])
        for column, points in log.items():
            name = gathered.names[run.path]
            kept = points[:: -(-len(points) // MOST_POINTS)]
            found.setdefault(column, []).extend({"label": run.name, "run": name, "x": x, "value": y} for x, y in kept)
    blocks: list[PageBlock] = [
        ChartBlock(column, charts.lines(rows, gathered.colors, x="steps", y=column), zooms=True)
        for column, rows in sorted(found.items())[:MOST_CHARTS]
    ]
    lacking = []
    if len(found) > MOST_CHARTS:
        lacking.append(f"Not drawn, but in progress.csv: {listed(sorted(found)[MOST_CHARTS:], 20)}.")
    if without:
        lacking.append(f"Without a log of losses: {listed(without, 20)}.")
    sentence = "None of these runs has a log of losses."
    if found:
        bad = sorted({row["run"] for every in found.values() for row in every if not math.isfinite(row["value"])})
        sentence = f"{count(len(found), 'logged number')} of training, such as {min(found)}; all of them are finite."
        sentence = f"Some numbers are NaN or infinite: those of {listed(bad, 20)}." if bad else sentence
    return Section(
        title="Losses", sentence=sentence, blocks=[*blocks, *(TextBlock(each, "missing") for each in lacking)]
    )


def logged(run: NamedRun, pattern: re.Pattern[str]) -> Iterator[tuple[str, Sequence[tuple[int, float]]]]:
    """The columns of a run's log that a pattern matches: name, and pairs of step and number.

    Online steps are counted from the last offline step of the evaluations, as in the learning curves.
    """
    folder = RunFolder(run.path)
    table, switch = read_table(folder.progress), switch_of(folder.read_evaluations())
    positions = [_step(dict(zip(table.columns, row, strict=True)), switch) for row in table.rows]
    for number, column in enumerate(table.columns):
        if not pattern.fullmatch(column):
            continue
        pairs = zip(positions, (_number(row[number]) for row in table.rows), strict=True)
        points = [(x, y) for x, y in pairs if x is not None and y is not None]
        if points:
            yield column, points


def _step(row: Mapping[str, str], switch: int) -> int | None:
    offline, online = (_number(row.get(STEP_COLUMNS[phase], "")) for phase in ("offline", "online"))
    if online is not None and math.isfinite(online):
        return switch + int(online)
    return int(offline) if offline is not None and math.isfinite(offline) else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
