"""Pictures of the demo: success rates, paths in the maze, and a GIF of one episode before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import PercentFormatter
from PIL import Image

from flowpolicies.files import atomic_write
from flowpolicies.policies.evaluation import Interval
from flowpolicies.reproduction.demo.maze import Cell, Maze

WALL, FLOOR, UNSEEN, GOAL = "#9a9a9a", "#ffffff", "#fbe3c8", "#f0c000"
"""Colours of walls, of the floor, of cells that are not in the data, and of the star at the goal."""

SECONDS_PER_FRAME = 0.08
"""How long a frame of the GIF is shown; the last one stays for two seconds."""


class Panel(NamedTuple):
    """Paths in a maze, with a title."""

    title: str
    maze: Maze
    paths: Sequence[np.ndarray]
    """Positions `[T, 2]` of each episode."""
    color: str
    unseen: Sequence[Cell] = ()
    """Cells that are not in the data, which are shaded."""
    has_task: bool = True
    """Whether start and goal are drawn."""

    def ends_at_goal(self, positions: int) -> bool:
        """Whether this number of positions is the whole of the first path, and it ends at the goal."""
        xy = self.paths[0]
        return positions == len(xy) and bool(np.linalg.norm(xy[-1] - self.maze.goal) < self.maze.unit / 2)


class Bars(NamedTuple):
    """Success rates that share a colour."""

    label: str
    color: str
    found: Mapping[str, Interval]
    """Label of a group of bars -> success rate; groups may be missing."""


def draw_success(groups: Sequence[str], bars: Sequence[Bars], path: Path, title: str, note: str = "") -> Path:
    """Draws bars of success rates with their 95 % intervals.

    Args:
        groups: labels of the groups of bars, from left to right.
        bars: the bars, in their order within a group.
        path: PNG file to write.
        title: title of the figure.
        note: line below the axis.

    Returns:
        `path`.

    Raises:
        ValueError: if some of the bars are in no group.
    """
    if empty := [one.label for one in bars if not any(group in one.found for group in groups)]:
        raise ValueError(f"there are no success rates of {', '.join(empty)} to draw.")
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / len(bars)
    for number, (label, color, found) in enumerate(bars):
        x = np.array([place for place, group in enumerate(groups) if group in found])
        x = x + width * (number - (len(bars) - 1) / 2)
        mean, low, high = np.array([found[group] for group in groups if group in found]).T
        axes.bar(x, mean, 0.9 * width, color=color, label=label, zorder=2)
        axes.errorbar(x, mean, (mean - low, high - mean), fmt="none", ecolor="0.2", elinewidth=1.1, capsize=2.5)
        for place in x[mean == 0]:  # A bar of no height would not be seen.
            axes.plot([place - 0.4 * width, place + 0.4 * width], [0, 0], color=color, linewidth=3)
    axes.set_xticks(range(len(groups)), groups)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel(note, fontsize=8, color="0.35")
    axes.set_ylabel("Success rate (%)")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
    axes.set_ylim(-0.02, 1.05)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=10, pad=28)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(bars), frameon=False, fontsize=9)
    return _save(figure, path)


def draw_paths(panels: Sequence[Panel], path: Path) -> Path:
    """Draws panels side by side, with a common legend, and returns `path`."""
    figure = Figure(figsize=(2.75 * len(panels), 3.65), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_maze(axes, panel)
        axes.add_collection(LineCollection(panel.paths, colors=panel.color, linewidths=1.1, alpha=0.55, zorder=3))
        ends = np.array([one[-1] for one in panel.paths])
        axes.scatter(*ends.T, s=11, color=panel.color, edgecolors="white", linewidths=0.4, zorder=5)
        axes.set_title(panel.title, fontsize=9)
    figure.legend(handles=_legend(panels), loc="outside lower center", ncols=5, frameon=False, fontsize=8.5)
    return _save(figure, path)


def draw_rollout(panels: Sequence[Panel], path: Path, frames: int = 60) -> Path:
    """Draws a GIF in which the first path of each panel moves, all at the same speed, and returns `path`."""
    figure = Figure(figsize=(2.4 * len(panels), 3.25), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    moving = []
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_maze(axes, panel)
        axes.set_title(panel.title, fontsize=9)
        (trail,) = axes.plot([], [], color=panel.color, linewidth=1.4, alpha=0.7, zorder=3)
        (dot,) = axes.plot([], [], "o", color=panel.color, markeredgecolor="white", markersize=8, zorder=8)
        text = axes.text(0.5, -0.01, " ", transform=axes.transAxes, ha="center", va="top", fontsize=8.5)
        moving.append((panel, trail, dot, text))
    figure.legend(handles=_legend(panels)[1:], loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    _pixels(canvas)
    figure.set_layout_engine("none")  # The layout is that of the first frame, and takes half of the time.
    images = []
    for now in np.linspace(1, _shown(panels), frames).astype(int):
        for panel, trail, dot, text in moving:
            xy, last = panel.paths[0], min(now, len(panel.paths[0]))
            trail.set_data(*xy[:last].T)
            dot.set_data(*xy[last - 1 : last].T)
            text.set_text(f"at the goal after {last - 1} steps" if panel.ends_at_goal(last) else f"step {last - 1}")
        images.append(_pixels(canvas))
    # One palette for all frames, so that what does not move takes no space.
    palette = images[-1].quantize(96, method=Image.Quantize.FASTOCTREE)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in images]
    times = [round(1000 * SECONDS_PER_FRAME)] * (len(small) - 1) + [2000]
    with atomic_write(path) as file:
        small[0].save(file, "GIF", save_all=True, append_images=small[1:], duration=times, loop=0, optimize=True)
    return path


def _pixels(canvas: Any) -> Image.Image:
    """The figure of a canvas as it is now; the methods of a canvas have no types."""
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _shown(panels: Sequence[Panel]) -> int:
    """Number of positions that the GIF shows: until the quickest policy has arrived, and a fifth more."""
    quickest = min(len(panel.paths[0]) for panel in panels)
    return min(max(len(panel.paths[0]) for panel in panels), round(1.2 * quickest))


def _draw_maze(axes: Axes, panel: Panel) -> None:
    """Draws the walls, the cells without data, the start and the goal."""
    maze = panel.maze
    rows, columns = maze.walls.shape
    half = maze.unit / 2
    left, bottom = maze.origin - half
    for i, j in np.ndindex(rows, columns):
        color = WALL if maze.walls[i, j] else UNSEEN if (i, j) in panel.unseen else FLOOR
        corner = (left + j * maze.unit, bottom + i * maze.unit)
        axes.add_patch(Rectangle(corner, maze.unit, maze.unit, facecolor=color, edgecolor=color, linewidth=0.3))
    if panel.has_task:
        axes.plot(*maze.start, "s", color="white", markeredgecolor="black", markersize=7, zorder=4)
        axes.plot(*maze.goal, "*", color=GOAL, markeredgecolor="black", markersize=13, zorder=7)
    # The outer half of the walls around the maze says nothing.
    axes.set_xlim(left + half, left + columns * maze.unit - half)
    axes.set_ylim(bottom + half, bottom + rows * maze.unit - half)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _legend(panels: Sequence[Panel]) -> list[Patch | Line2D]:
    """Entries of the legend: the walls, the cells without data if there are any, the start and the goal."""
    entries: list[Patch | Line2D] = [Patch(facecolor=WALL, label="wall")]
    if any(panel.unseen for panel in panels):
        entries.append(Patch(facecolor=UNSEEN, edgecolor="0.8", label="cells without data"))
    for mark, label, color, size in (("s", "start", "white", 7), ("*", "goal", GOAL, 11)):
        style: dict[str, Any] = {"linestyle": "", "color": color, "markeredgecolor": "black", "markersize": size}
        entries.append(Line2D([], [], marker=mark, label=label, **style))
    return entries


def _save(figure: Figure, path: Path) -> Path:
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=150)
    return path
