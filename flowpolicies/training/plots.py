"""Figures of learning curves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.artist import Artist
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
"""Line styles, of which each is for as many curves as there are colors."""

COLUMNS_OF_PANELS = 3
"""Largest number of panels beside each other."""


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
    runs: str = "seeds",
) -> Path:
    """Draws a learning curve with its 95 % interval for each label, and a legend that says what the bands are.

    Online steps follow the offline steps, to the right of a vertical line. Several rows of a label at the same step are
    seeds: the curve is their mean, and the interval is a bootstrap over them. The interval of a single row is the one
    over its episodes. A label with evaluations at one step only is a dashed line at their height.

    Args:
        evaluations: label -> evaluations of one or several runs.
        path: file to write; its suffix determines the format.
        metric: what to draw; None: success if all rows have it, otherwise the return.
        title: title of the figure; None: no title.
        runs: what the several rows of a label at the same step differ in, for the legend.

    Returns:
        `path`.

    Raises:
        ValueError: if there are no rows, or if rows do not have the metric.
    """
    return plot_panels({title or "": evaluations}, path, metric=metric, runs=runs)


def plot_panels(
    panels: Mapping[str, Mapping[str, Sequence[EvaluationRow]]],
    path: Path,
    *,
    metric: Literal["success", "return"] | None = None,
    runs: str = "seeds",
) -> Path:
    """Draws `plot_learning_curves` for several tasks beside each other; a label has one colour in all of them.

    Args:
        panels: title of each panel -> its curves.
        path: file to write; its suffix determines the format.
        metric: what to draw; None: success if all rows have it, otherwise the return.
        runs: what the several rows of a label at the same step differ in, for the legend.

    Raises:
        ValueError: if a panel has no rows, or if rows do not have the metric.
    """
    every = [rows for curves in panels.values() for rows in curves.values()]
    metric = choose_metric([row for rows in every for row in rows], metric)
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    across = min(COLUMNS_OF_PANELS, len(panels))
    down = math.ceil(len(panels) / across)
    size = (6.4, 3.7) if len(panels) == 1 else (1.2 + 3.2 * across, 0.9 + 2.5 * down)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False).flatten()
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        rows = [row for group in curves.values() for row in group]
        switch = max((row.step for row in rows if row.phase == "offline"), default=0)
        for label, group in curves.items():
            draw_curve(axes, curve(group, metric, switch), label, labels.index(label))
        _mark_phases(axes, rows, switch, is_narrow=len(panels) > 1)
        _dress(axes, metric, title)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    add_legend(figure, band_text(every, runs), hide=len(labels) == 1)
    return save(figure, path)


def choose_metric(
    rows: Sequence[EvaluationRow], metric: Literal["success", "return"] | None = None
) -> Literal["success", "return"]:
    """The metric to draw: success if all rows have it, otherwise the return.

    Raises:
        ValueError: if there are no rows, or if they do not have the metric that is asked for.
    """
    if not rows:
        raise ValueError(
            "there are no evaluations to plot. Train with an environment, and with eval_episodes of at least 1."
        )
    has_success = not any(math.isnan(row.success) for row in rows)
    if metric == "success" and not has_success:
        raise ValueError("the environment did not report success; pass metric='return'.")
    return metric or ("success" if has_success else "return")


def band_text(groups: Sequence[Sequence[EvaluationRow]], runs: str = "seeds") -> str:
    """What the bands of curves are, each of which is made of the rows of a group."""
    counts = [Counter((row.phase, row.step) for row in rows) for rows in groups]
    most = [max(count.values()) for count in counts if count]
    least, largest = min(most), max(most)
    if largest == 1:
        return "95 % interval over the episodes of an evaluation"
    several = f"{largest} {runs}" if least == largest else f"up to {largest} {runs}"
    alone = ", of single runs over episodes" if least == 1 else ""
    is_uneven = any(len(set(count.values())) > 1 for count in counts)
    fewer = f"\nsome points are of fewer {runs}" if is_uneven else ""
    return f"95 % bootstrap interval over {several}{alone}{fewer}"


def add_legend(figure: Figure, band: str, *, hide: bool = False) -> None:
    """Adds a legend below the panels, with each label once, whose title says what the bands are.

    Args:
        band: what the bands are.
        hide: leave the labels out, where there is only one.
    """
    found = dict[str, Artist]()
    for axes in figure.axes:
        for artist, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, artist)
    shown = {} if hide else found
    columns = min(max(1, len(shown)), max(2, int(figure.get_figwidth() / 1.9)))
    small: dict[str, Any] = {"frameon": False, "fontsize": 8, "title_fontsize": 8}
    figure.legend(
        [*shown.values()], [*shown], loc="outside lower center", ncols=columns, title=f"shaded: {band}", **small
    )


def save(figure: Figure, path: Path, dpi: int = 200) -> Path:
    """Writes a figure, atomically; the suffix of the path determines the format."""
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix(".") or "png", dpi=dpi)
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


def draw_curve(axes: Axes, points: Sequence[Point], label: str, number: int) -> None:
    """Draws a curve with its band; a single point becomes a dashed line at its height.

    Args:
        number: number of the curve, which determines color and line style.
    """
    color, style = COLORS[number % len(COLORS)], STYLES[number // len(COLORS) % len(STYLES)]
    x, mean, low, high = (np.array(column) for column in zip(*points, strict=True))
    if len(points) == 1:
        axes.axhspan(low[0], high[0], color=color, alpha=0.1, linewidth=0)
        axes.axhline(mean[0], color=color, linewidth=1.4, linestyle=(0, (6, 3)), label=f"{label} (one evaluation)")
        axes.plot(x, mean, "o", color=color, markersize=3.5)
        return
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(x, mean, style, color=color, label=label, linewidth=1.8, marker="o", markersize=3.5)


def _mark_phases(axes: Axes, rows: Sequence[EvaluationRow], switch: int, *, is_narrow: bool) -> None:
    phases = {row.phase for row in rows}
    unit = {"offline": "Gradient steps", "online": "Environment steps"}
    if len(phases) == 1:
        axes.set_xlabel(unit[phases.pop()])
        return
    separator = ",\n" if is_narrow else ", "
    axes.set_xlabel(f"Gradient steps (offline){separator}then environment steps (online)", fontsize=9)
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


def _dress(axes: Axes, metric: str, title: str) -> None:
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
    if title:
        axes.set_title(title, fontsize=10, pad=18)  # The padding leaves room for the names of the phases.
