"""What all figures share: names, colours, panels of the box, and saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from flowpolicies.files import atomic_write
from flowpolicies.toy.datasets import BOX, Points, draw_points
from flowpolicies.training.plots import COLORS

LABELS = {"qflow": "Q-Flow", "qflow_bptt": "Q-Flow, BPTT", "fql": "FQL", "fbrac": "FBRAC", "qam": "QAM", "ifql": "IFQL"}
"""Name of an algorithm -> its name in figures; others are shown by the former."""
TITLES = {
    "swissroll": "swiss roll",
    "two_spirals": "two spirals",
    "eight_gaussians": "eight Gaussians",
    "moons": "moons",
}
"""Name of a dataset -> its name in figures."""
REWARD_MAP, VALUE_MAP, DATA = "viridis", "viridis", "0.82"
"""Colour maps of rewards and of values, and the colour of the data behind samples."""
PALE = "0.9"
"""Grey of grid lines."""
DPI, COLORS_OF_FILE = 130, 256
"""Dots per inch, and number of colours of a file."""


def label_of(method: str) -> str:
    """Name of an algorithm in figures."""
    return LABELS.get(method, method)


def color_of(number: int) -> str:
    """The colour of a curve by its number."""
    return COLORS[number % len(COLORS)]


def panels(rows: int, columns: int, size: float = 1.9, extra: tuple[float, float] = (0.5, 0.3)) -> tuple[Figure, Any]:
    """A figure with square panels of so many inches, and the panels `[rows, columns]`."""
    figure = Figure(figsize=(size * columns + extra[0], size * rows + extra[1]), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def show_box(axes: Axes, title: str = "", margin: float = 0.15) -> None:
    """Makes a panel show the box, without ticks."""
    limit = BOX + margin
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("0.75")
    axes.set_title(title, fontsize=8.5)


def show_data(axes: Axes, dataset: str, n: int = 2000) -> None:
    """Draws points of the data in pale grey."""
    positions = draw_points(dataset).positions
    chosen = positions[np.random.default_rng(0).permutation(len(positions))[:n]]
    axes.scatter(chosen[:, 0], chosen[:, 1], s=1.2, color=DATA, linewidths=0, rasterized=True, zorder=1)


def top_reward(data: Points) -> float:
    """Reward at the bright end of the colour map."""
    return float(np.quantile(data.rewards, 0.995))


def reward_bar(figure: Figure, axes: Any, top: float, label: str = "reward") -> None:
    """Draws the scale of rewards beside panels."""
    bar = figure.colorbar(ScalarMappable(Normalize(0, top), REWARD_MAP), ax=axes, shrink=0.7, pad=0.015, aspect=25)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def nearest_rewards(samples: np.ndarray, data: Points) -> np.ndarray:
    """Reward of the data point nearest to each sample, `[N]`."""
    nearest = torch.cdist(torch.as_tensor(samples), torch.as_tensor(data.positions)).argmin(1)
    rewards: np.ndarray = data.rewards[nearest.numpy()]
    return rewards


def write(figure: Figure, path: Path) -> Path:
    """Saves a figure as a PNG file with a palette, which takes a third of the space."""
    figure.set_dpi(DPI)
    with atomic_write(path) as file:
        pixels(figure).quantize(COLORS_OF_FILE, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return path


def pixels(figure: Figure) -> Image.Image:
    """The figure as it is now."""
    canvas: Any = figure.canvas  # Its methods have no types.
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
