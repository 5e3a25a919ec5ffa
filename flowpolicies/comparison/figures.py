"""The figure of a comparison: intervals, probabilities of improvement, performance profiles and learning curves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from flowpolicies.comparison.scores import UNITS, Metric, RunScores, ScoreTable
from flowpolicies.comparison.statistics import (
    interquartile_mean,
    mean_over_tasks,
    performance_profile,
    probability_of_improvement,
)
from flowpolicies.policies.intervals import Interval
from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.training.plots import COLORS, Point, add_legend, curve, draw_curve, save

THRESHOLDS = 60
"""Number of thresholds of a performance profile."""


def draw_comparison(comparison: ScoreTable, baseline: str, path: Path) -> Path:
    """Draws the panels that the runs have data for: curves need run folders, and averages need scores on one scale."""
    panels = []
    labels = list(comparison.table)
    if comparison.common and comparison.is_on_one_scale:
        panels += [_draw_intervals, _draw_profiles]
    if comparison.common and len(labels) > 1:
        panels.insert(1, _draw_improvements)
    if comparison.is_on_one_scale and all(one.evaluations for one in comparison.runs):
        panels.append(_draw_curves)
    if not panels:
        raise ValueError(
            "there is nothing to draw: these are results files or returns, and no environment has runs of all labels."
        )
    figure = Figure(figsize=(9.6, 0.5 + 3.3 * math.ceil(len(panels) / 2)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(math.ceil(len(panels) / 2), 2, squeeze=False).flatten()
    for axes, draw in zip(grid, panels, strict=False):
        draw(axes, comparison, baseline)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    tasks = "1 task" if len(comparison.common) == 1 else f"{len(comparison.common)} common tasks"
    add_legend(figure, f"95 % stratified bootstrap intervals over runs, {tasks}{_fewer(comparison)}")
    return save(figure, path, dpi=150)


def _fewer(comparison: ScoreTable) -> str:
    """A remark for curves in which some points are means of fewer runs than others."""
    groups: dict[tuple[str, str], Counter[tuple[str, int]]] = {}
    for one in comparison.runs:
        counts = groups.setdefault((one.label, one.environment), Counter())
        counts.update((row.phase, row.step) for row in one.evaluations)
    is_uneven = any(len(set(counts.values())) > 1 for counts in groups.values())
    return "; some points of curves are of fewer runs" if is_uneven else ""


def _color(comparison: ScoreTable, label: str) -> str:
    return COLORS[list(comparison.table).index(label) % len(COLORS)]


def _draw_rows(axes: Axes, comparison: ScoreTable, rows: Sequence[tuple[str, str, Interval]]) -> None:
    """A point with its interval for each row, from the top: label, which determines the color, name and interval."""
    for y, (label, _, (mean, low, high)) in enumerate(reversed(rows)):
        color = _color(comparison, label)
        if not math.isnan(low):
            axes.plot([low, high], [y, y], color=color, linewidth=6, alpha=0.3, solid_capstyle="butt")
        axes.plot([mean], [y], "o", color=color, markersize=5)
    axes.set_yticks(range(len(rows)), [name for _, name, _ in reversed(rows)], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="x", color="0.9", linewidth=0.8)


def _draw_intervals(axes: Axes, comparison: ScoreTable, baseline: str) -> None:
    kinds = {"IQM": interquartile_mean, "mean": mean_over_tasks}
    rows = [
        (label, f"{label}, {kind}", estimate(comparison.groups(label)))
        for label in comparison.table
        for kind, estimate in kinds.items()
    ]
    _draw_rows(axes, comparison, rows)
    axes.set_title("Interquartile mean and mean", fontsize=10)
    axes.set_xlabel(f"{UNITS[comparison.metric]}")


def _draw_improvements(axes: Axes, comparison: ScoreTable, baseline: str) -> None:
    base = comparison.groups(baseline)
    rows = [
        (label, label, probability_of_improvement(comparison.groups(label), base))
        for label in comparison.table
        if label != baseline
    ]
    axes.axvline(0.5, color="0.35", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    _draw_rows(axes, comparison, rows)
    axes.set_xlim(-0.03, 1.03)
    axes.set_title(f"Probability of a better run than {baseline}", fontsize=10)
    axes.set_xlabel("probability; dashed: 1/2")


def _draw_profiles(axes: Axes, comparison: ScoreTable, baseline: str) -> None:
    scores = np.concatenate([group for label in comparison.table for group in comparison.groups(label)])
    low, high = (0.0, 100.0) if comparison.metric == "success" else (float(scores.min()), float(scores.max()))
    thresholds = np.linspace(low, high, THRESHOLDS)
    for label in comparison.table:
        found, color = performance_profile(comparison.groups(label), thresholds), _color(comparison, label)
        axes.fill_between(found.thresholds, found.low, found.high, color=color, alpha=0.18, linewidth=0)
        axes.step(found.thresholds, found.shares, where="mid", color=color, linewidth=1.6, label=label)
    axes.set_ylim(-0.03, 1.03)
    axes.set_title("Performance profile", fontsize=10)
    axes.set_xlabel(f"threshold: {UNITS[comparison.metric]}")
    axes.set_ylabel("share of runs above")
    axes.grid(color="0.9", linewidth=0.8)


def _draw_curves(axes: Axes, comparison: ScoreTable, baseline: str) -> None:
    rows = [row for one in comparison.runs for row in one.evaluations]
    switch = max((row.step for row in rows if row.phase == "offline"), default=0)
    for number, label in enumerate(comparison.table):
        own = [one for one in comparison.runs if one.label == label]
        draw_curve(axes, pooled_curve(own, comparison.metric, switch), label, number)
    if has_online := any(row.phase == "online" for row in rows):
        axes.axvline(switch, color="0.35", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_title("Mean over tasks during training", fontsize=10)
    axes.set_xlabel("gradient steps (offline), then environment steps" if has_online else "gradient steps")
    axes.set_ylabel("success in %" if comparison.metric == "success" else "return")
    axes.grid(axis="y", color="0.9", linewidth=0.8)


def pooled_curve(runs: Sequence[RunScores], metric: Metric, switch: int) -> list[Point]:
    """Mean over tasks of the mean over seeds at each step that all tasks have, with stratified bootstrap intervals.

    One task with a single run has the intervals over the episodes of its evaluations.

    Args:
        runs: runs of one label.
        metric: success, in percent; of another metric the return.
        switch: position at which the online steps begin.
    """
    tasks: dict[str, list[EvaluationRow]] = {}
    for one in runs:
        tasks.setdefault(one.environment, []).extend(one.evaluations)
    drawn, scale = ("success", 100.0) if metric == "success" else ("return", 1.0)
    if len(tasks) == 1:
        points = curve(next(iter(tasks.values())), drawn, switch)  # type: ignore[arg-type]
        return [Point(x, *(scale * value for value in rest)) for x, *rest in points]
    found: dict[int, dict[str, list[float]]] = {}
    for task, rows in tasks.items():
        for row in rows:
            x = row.step + (switch if row.phase == "online" else 0)
            value = scale * (row.success if drawn == "success" else row.mean_return)
            found.setdefault(x, {}).setdefault(task, []).append(value)
    shared = {
        x: list(map(np.array, groups.values())) for x, groups in sorted(found.items()) if len(groups) == len(tasks)
    }
    return [Point(x, *mean_over_tasks(groups)) for x, groups in shared.items()]
