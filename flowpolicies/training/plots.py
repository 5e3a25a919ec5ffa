"""Figures of learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from flowpolicies.files import atomic_write
from flowpolicies.policies.evaluation import mean_interval
from flowpolicies.training.evaluations import EvaluationRow

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Palette of Okabe and Ito, which people with colour blindness can distinguish; more curves get other line styles."""

STYLES = ("-", "--", ":", "-.")


class Point(NamedTuple):
    """One point of a curve, with its 95 % interval."""

    x: int
    """Position on the horizontal axis, in steps."""
    mean: float
    """Success rate or return."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


def plot_learning_curves(
    evaluations: Mapping[str, Sequence[EvaluationRow]],
    path: Path,
    *,
    metric: Literal["success", "return"] | None = None,
    title: str | None = None,
) -> Path:
    """Draws a learning curve with its 95 % interval for each label.

    Online steps follow the offline steps, to the right of a vertical line. Several rows of a label at the same step are
    seeds: the curve is their mean, and the interval is a bootstrap over them. The interval of a single row is the one
    over its episodes.

    Args:
        evaluations: label -> evaluations of one or several runs.
        path: file to write; its suffix determines the format.
        metric: what to draw; None: success if all rows have it, otherwise the return.
        title: title of the figure; None: no title.

    Returns:
        `path`.

    Raises:
        ValueError: if there are no rows, or if rows do not have the metric.
    """
    rows = [row for group in evaluations.values() for row in group]
    if not rows:
        raise ValueError(
            "there are no evaluations to plot. Train with an environment, and with eval_episodes of at least 1."
        )
    has_success = not any(math.isnan(row.success) for row in rows)
    if metric == "success" and not has_success:
        raise ValueError("the environment did not report success; pass metric='return'.")
    metric = metric or ("success" if has_success else "return")
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    switch = max((row.step for row in rows if row.phase == "offline"), default=0)
    for number, (label, group) in enumerate(evaluations.items()):
        color, style = COLORS[number % len(COLORS)], STYLES[number // len(COLORS) % len(STYLES)]
        _draw(axes, curve(group, metric, switch), label, color, style)
    _mark_phases(axes, rows, switch)
    _dress(axes, metric, title, legend=len(evaluations) > 1)
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix(".") or "png", dpi=200)
    return path


def curve(rows: Sequence[EvaluationRow], metric: Literal["success", "return"], switch: int) -> list[Point]:
    """The points of one label from left to right.

    Args:
        rows: evaluations of one or several runs.
        metric: what to draw.
        switch: position at which the online steps begin.
    """
    groups: dict[int, list[EvaluationRow]] = {}
    for row in rows:
        groups.setdefault(row.step + (switch if row.phase == "online" else 0), []).append(row)
    return [Point(x, *_estimate(groups[x], metric)) for x in sorted(groups)]


def _estimate(rows: Sequence[EvaluationRow], metric: Literal["success", "return"]) -> tuple[float, float, float]:
    if len(rows) > 1:
        return mean_interval(np.array([row.success if metric == "success" else row.mean_return for row in rows]))
    row = rows[0]
    return (
        (row.success, row.low, row.high) if metric == "success" else (row.mean_return, row.return_low, row.return_high)
    )


def _draw(axes: Axes, points: Sequence[Point], label: str, color: str, style: str) -> None:
    x, mean, low, high = (np.array(column) for column in zip(*points, strict=True))
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(x, mean, style, color=color, label=label, linewidth=1.8, marker="o", markersize=3.5)


def _mark_phases(axes: Axes, rows: Sequence[EvaluationRow], switch: int) -> None:
    phases = {row.phase for row in rows}
    unit = {"offline": "Gradient steps", "online": "Environment steps"}
    if len(phases) == 1:
        axes.set_xlabel(unit[phases.pop()])
        return
    axes.set_xlabel("Gradient steps (offline), then environment steps (online)")
    axes.axvline(switch, color="0.35", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for text, side, offset in (("offline", "right", -5), ("online", "left", 5)):
        axes.annotate(
            text,
            (switch, 1.0),
            (offset, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha=side,
            va="bottom",
            fontsize=8,
            color="0.35",
        )


def _dress(axes: Axes, metric: str, title: str | None, *, legend: bool) -> None:
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    if metric == "success":
        axes.set_ylabel("Success rate (%)")
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
        axes.set_ylim(-0.02, 1.02)
    else:
        axes.set_ylabel("Return (sum of rewards)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    if title is not None:
        axes.set_title(title, fontsize=10, pad=18)  # The padding leaves room for the names of the phases.
    if legend:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
