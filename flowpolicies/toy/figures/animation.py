"""An animation of samples in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flowpolicies.files import atomic_write
from flowpolicies.toy.datasets import draw_points
from flowpolicies.toy.figures.frame import (
    REWARD_MAP,
    label_of,
    nearest_rewards,
    panels,
    pixels,
    show_box,
    show_data,
    top_reward,
)
from flowpolicies.toy.results import ToyResults, TrainedCell

MILLISECONDS, LAST = 120, 2500
"""How long a frame is shown, and how long the last one is."""
CLONING = 8
"""Number of frames of behaviour cloning."""


def draw_evolution(results: ToyResults, dataset: str, path: Path) -> Path:
    """Samples of each method in behaviour cloning, and then with the weakest regularisation, as a GIF."""
    weakest = results.coefficients[0]
    found = {
        method: (results.get(dataset, method, "cloning"), results.get(dataset, method, weakest))
        for method in results.methods
    }
    figure, grid = panels(1, len(found), 2.1, (0.1, 0.35))
    figure.set_dpi(90)
    data, top, moving = draw_points(dataset), top_reward(draw_points(dataset)), []
    for axes, (method, (start, end)) in zip(grid[0], found.items(), strict=True):
        if start is None or end is None:
            axes.set_axis_off()
            continue
        show_data(axes, dataset, 1200)
        frames = [*_thinned(start), *_all(end)]
        style: dict[str, Any] = {"s": 5, "linewidths": 0, "cmap": REWARD_MAP, "zorder": 2}
        dots = axes.scatter(*frames[0][1].T, c=np.zeros(len(frames[0][1])), vmin=0, vmax=top, **style)
        show_box(axes, label_of(method))
        moving.append((axes, dots, frames))
    pixels(figure)
    figure.set_layout_engine("none")
    images = []
    for number in range(min((len(frames) for _, _, frames in moving), default=0)):
        for axes, dots, frames in moving:
            text, samples = frames[number]
            dots.set_offsets(samples)
            dots.set_array(nearest_rewards(samples, data))
            axes.set_xlabel(text, fontsize=7.5, labelpad=2)
        images.append(pixels(figure))
    palette = images[-1].quantize(64, method=Image.Quantize.FASTOCTREE)
    small = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    times = [MILLISECONDS] * (len(small) - 1) + [LAST]
    with atomic_write(path) as file:
        small[0].save(file, "GIF", save_all=True, append_images=small[1:], duration=times, loop=0, optimize=True)
    return path


def _thinned(found: TrainedCell) -> list[tuple[str, np.ndarray]]:
    """A few frames of behaviour cloning, most of them of its beginning."""
    frames = _all(found)
    chosen = np.unique(np.geomspace(1, len(frames), CLONING).round().astype(int) - 1)
    return [(f"cloning, update {frames[i][0]}", frames[i][1]) for i in chosen]


def _all(found: TrainedCell) -> list[tuple[str, np.ndarray]]:
    frames = found.arrays["frames"].astype(np.float32)
    lines = found.about["log"]
    value = found.cell.coefficient
    prefix = "" if isinstance(value, str) else f"coefficient {value:g}, update "
    return [(f"{prefix}{line['update']}", one) for line, one in zip(lines, frames, strict=True)]
