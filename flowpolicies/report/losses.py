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
    without, bad = [], []
    for run in (run for run in gathered.runs if not is_results(run.path)):
        name, log = gathered.names[run.path], dict(logged(run, SHOWN))
        if not log or run.name not in gathered.colors:
            without.append(name)
            continue
        for column, points in log.items():
            x, value = map(list, zip(*points[:: -(-len(points) // MOST_POINTS)], strict=True))
            found.setdefault(column, []).append({"label": run.name, "run": name, "x": x, "value": value})
        bad += [name] * any(not math.isfinite(y) for points in log.values() for _, y in points)
    blocks: list[PageBlock] = [
        ChartBlock(column, charts.lines(rows, gathered.colors, x="steps", y=column), zooms=True)
        for column, rows in sorted(found.items())[:MOST_CHARTS]
    ]
    if len(found) > MOST_CHARTS:
        text = f"Not drawn, but in progress.csv: {listed(sorted(found)[MOST_CHARTS:], 20)}."
        blocks.append(TextBlock(text, "missing"))
    if without:
        blocks.append(TextBlock(f"Without a log of losses, or without a score: {listed(without, 20)}.", "missing"))
    sentence = "None of these runs has a log of losses."
    if found:
        sentence = f"{count(len(found), 'logged number')} of training, such as {min(found)}; all of them are finite."
    if bad:
        sentence = f"Some logged numbers are NaN or infinite: those of {listed(bad, 20)}."
    return Section(title="Losses", sentence=sentence, blocks=blocks)


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
