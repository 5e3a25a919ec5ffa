"""Sections about what happens during training: learning curves, and the switch to online training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from flowpolicies.comparison.figures import pooled_curve
from flowpolicies.comparison.scores import RunScores
from flowpolicies.pages.blocks import ChartBlock, KeyBlock, PageBlock, PageCell, Section, TableBlock, TextBlock
from flowpolicies.policies.intervals import Interval, mean_interval
from flowpolicies.report import charts
from flowpolicies.report.gather import Gathered, count, listed, short
from flowpolicies.report.results import interval_cell
from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.training.plots import band_text

HOW = (
    "Thin lines: single runs. Drag to move a chart, zoom with its buttons or with Ctrl and the wheel; reset shows all."
)
"""What is said about all curves."""
UNEVEN = "Some points are means of fewer runs than others, so that a curve may rise or fall while no run does"
"""What is said about curves of runs with different evaluations."""


def curves_section(gathered: Gathered) -> Section:
    """Learning curves of each task, and of the mean over tasks."""
    title, runs = "Learning curves", gathered.in_folders
    if not runs:
        sentence = "There are no curves: these are results files, and only run folders have evaluations of training."
        return Section(title=title, sentence=sentence)
    panels: list[tuple[str, Sequence[RunScores]]] = [
        (short(name), own)
        for name in gathered.environments
        if (own := [one for one in runs if one.environment == name])
    ]
    if len(gathered.comparison.common) > 1 and gathered.comparison.is_on_one_scale:
        common = [one for one in runs if one.environment in gathered.comparison.common]
        panels.insert(0, ("Mean over the tasks that all labels have", common))
    groups = _groups(runs)
    band = band_text([[row for one in group for row in one.evaluations] for group in groups])
    blocks: list[PageBlock] = [KeyBlock(gathered.colors), TextBlock(f"Shaded: {band}. {HOW}")]
    blocks += [ChartBlock(name, _chart(gathered, some), zooms=True) for name, some in panels]
    if uneven := [f"{group[0].label} in {short(group[0].environment)}" for group in groups if _is_uneven(group)]:
        blocks.append(TextBlock(f"{UNEVEN}: {listed(uneven, 8)}.", "missing"))
    if files := len(gathered.comparison.runs) - len(runs):
        text = f"{count(files, 'run')} of results files have no curve: only run folders have evaluations of training."
        blocks.append(TextBlock(text, "missing"))
    return Section(title=title, sentence=_highest(gathered, groups), blocks=blocks)


def switch_of(rows: Sequence[EvaluationRow]) -> int:
    """Position at which online steps begin."""
    return max((row.step for row in rows if row.phase == "offline"), default=0)


def _groups(runs: Sequence[RunScores]) -> list[list[RunScores]]:
    """The runs of each label in each environment."""
    found: dict[tuple[str, str], list[RunScores]] = {}
    for one in runs:
        found.setdefault((one.label, one.environment), []).append(one)
    return list(found.values())


def _is_uneven(runs: Sequence[RunScores]) -> bool:
    """Whether runs have evaluations at different steps."""
    steps = [{(row.phase, row.step) for row in one.evaluations} for one in runs]
    return any(each != steps[0] for each in steps)


def _chart(gathered: Gathered, runs: Sequence[RunScores]) -> charts.Spec:
    rows = [row for one in runs for row in one.evaluations]
    switch, metric, phases = switch_of(rows), gathered.comparison.metric, {row.phase for row in rows}
    is_one_task = len({one.environment for one in runs}) == 1
    points: list[dict[str, Any]] = []
    seeds: list[dict[str, Any]] = []
    for label in dict.fromkeys(one.label for one in runs):
        own = [one for one in runs if one.label == label]
        singles = {one.run.path: pooled_curve([one], metric, switch) for one in own}
        for point in pooled_curve(own, metric, switch):
            number = sum(any(single.x == point.x for single in each) for each in singles.values())
            points.append({"label": label, **point._asdict(), "runs": number})
        for path, each in singles.items() if is_one_task and len(own) > 1 else ():
            seeds += [{"label": label, "run": gathered.names[path], "x": x, "mean": mean} for x, mean, *_ in each]
    units = {"offline": "gradient steps", "online": "environment steps"}
    return charts.curves(
        points,
        seeds,
        gathered.colors,
        x=units[min(phases)] if len(phases) == 1 else "gradient steps, then environment steps",
        y="success in %" if gathered.is_success else "return",
        switch=switch if len(phases) == 2 else None,
        extent=gathered.extent,
    )


def _highest(gathered: Gathered, groups: Sequence[Sequence[RunScores]]) -> str:
    """The highest point of all curves of single tasks."""
    found = []
    for group in groups:
        switch = switch_of([row for one in group for row in one.evaluations])
        for point in pooled_curve(group, gathered.comparison.metric, switch):
            found.append((point.mean, f"{group[0].label} in {short(group[0].environment)}", point.x))
    known = [each for each in found if not math.isnan(each[0])]
    if not known:
        return "The evaluations of training do not hold what is compared."
    mean, name, x = max(known, key=lambda each: each[0])
    unit = "% success" if gathered.is_success else "return"
    return f"The highest point is that of {name}: {mean:.4g} {unit} at step {x:,}."


def online_section(gathered: Gathered) -> Section:
    """What online training has changed, for the runs that have both phases."""
    title = "Offline to online"
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    only = []
    for one in gathered.in_folders:
        before, after = (_values(gathered, one, phase) for phase in ("offline", "online"))
        if before and after:
            found.setdefault((one.label, one.environment), []).append((before[-1], min(after), after[-1]))
        elif after:
            only.append(gathered.names[one.run.path])
    text = f"Online only, so nothing is before the switch: {listed(only, 20)}."
    lacking = [TextBlock(text, "missing")] if only else []
    if not found:
        sentence = "There is no switch to see: none of these runs has evaluations of both phases."
        return Section(title=title, sentence=sentence, blocks=lacking)
    rows, changes = [], {}
    for (label, name), values in found.items():
        before, lowest, after = np.array(values).T
        change = mean_interval(after - before)
        changes[f"{label} in {short(name)}"] = change.mean
        numbers = [PageCell(f"{each.mean():.4g}", float(each.mean())) for each in (before, lowest, after)]
        shown = change if len(values) > 1 else Interval(change.mean, math.nan, math.nan)
        rows.append([*map(PageCell, (label, short(name), str(len(values)))), *numbers, interval_cell(shown)])
    unit = "success in %" if gathered.is_success else "return"
    head = ("label", "task", "runs", "before the switch", "lowest online", "at the end", "change")
    table = TableBlock(f"{unit}: means over runs; the change with its 95 % interval over runs", head, rows)
    name, most = max(changes.items(), key=lambda item: abs(item[1]))
    sentence = (
        f"Online training changes most for {name}: {most:+.4g}; a dashed line in the learning curves is the switch."
    )
    return Section(title=title, sentence=sentence, blocks=[table, *lacking])


def _values(gathered: Gathered, one: RunScores, phase: str) -> list[float]:
    """What curves show of the evaluations of a phase."""
    rows = [row for row in one.evaluations if row.phase == phase]
    return [100 * row.success if gathered.is_success else row.mean_return for row in rows]
