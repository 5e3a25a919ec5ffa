"""Figures of the local benchmark: learning curves of each dataset, and interquartile means over all tasks."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flowpolicies.files import atomic_write
from flowpolicies.reproduction.local.results import Scores
from flowpolicies.training.evaluations import EvaluationRow, Phase
from flowpolicies.training.plots import COLORS, curve

COLUMNS_OF_PANELS = 5
"""Largest number of panels beside each other."""
PHASE_STYLES: dict[Phase, tuple[str, float]] = {"offline": (COLORS[0], 0.14), "online": (COLORS[1], -0.14)}
"""Phase -> color, and distance from the line of its algorithm."""


def draw_curves(scores: Scores, dataset: str, path: Path) -> list[Path]:
    """Draws success over the steps for each algorithm of a dataset, with 95 % intervals over all seeds and tasks.

    Each algorithm has a panel of its own, because ten curves with intervals hide each other.

    Returns:
        The path; empty if the dataset has no reported runs.
    """
    rows: dict[str, list[EvaluationRow]] = {}
    for one in scores.results:
        if one.key.dataset == dataset:
            rows.setdefault(one.key.algorithm, []).extend(one.evaluations)
    names = [name for name in scores.benchmark.algorithms if name in rows]
    if not names:
        return []
    across = min(COLUMNS_OF_PANELS, len(names))
    down = math.ceil(len(names) / across)
    figure = Figure(figsize=(1.0 + 1.9 * across, 0.8 + 1.6 * down), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
    for panel, name in zip(panels, names, strict=False):
        _draw_panel(panel, rows[name], name, scores.benchmark.steps)
    panels[0].set_xlim(0, 1.02 * max(panel.dataLim.xmax for panel in panels))
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.suptitle(f"{dataset}: mean over tasks and seeds, 95 % intervals", fontsize=10)
    figure.supxlabel("Gradient steps (offline), then environment steps (online)", fontsize=9)
    figure.supylabel("Success (%)", fontsize=9)
    return [_save(figure, path)]


def _draw_panel(axes: Axes, rows: list[EvaluationRow], name: str, switch: int) -> None:
    points = curve(rows, "success", switch)
    x, mean, low, high = ([100 * v if i else v for v in column] for i, column in enumerate(zip(*points, strict=True)))
    axes.fill_between(x, low, high, color=COLORS[0], alpha=0.2, linewidth=0)
    axes.plot(x, mean, color=COLORS[0], linewidth=1.6, marker="o", markersize=2.5)
    if any(row.phase == "online" for row in rows):
        axes.axvline(switch, color="0.35", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_title(name, fontsize=9)
    axes.set_ylim(-3, 103)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def draw_iqm(scores: Scores, path: Path) -> list[Path]:
    """Draws the interquartile means of the algorithms that have all runs, with their 95 % intervals.

    Returns:
        The path; empty if there is none to draw.
    """
    found = {
        (name, phase): interval
        for name in scores.benchmark.algorithms
        for phase in PHASE_STYLES
        if (interval := scores.iqm(name, phase)) is not None
    }
    names = [name for name in reversed(list(scores.benchmark.algorithms)) if any(name == one for one, _ in found)]
    if not names:
        return []
    figure = Figure(figsize=(6.0, 0.9 + 0.36 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for phase, (color, shift) in PHASE_STYLES.items():
        shown = [(i + shift, found[name, phase]) for i, name in enumerate(names) if (name, phase) in found]
        for y, (_, low, high) in shown:
            axes.plot([100 * low, 100 * high], [y, y], color=color, linewidth=5, alpha=0.3)
        axes.plot([100 * one.mean for _, one in shown], [y for y, _ in shown], "o", color=color, label=phase)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("Interquartile mean of success over tasks and seeds (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return [_save(figure, path)]


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=150)
    return path
