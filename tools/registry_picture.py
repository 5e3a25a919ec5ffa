"""Draws docs/results/registry-pendulum.png from the runs in registry-pendulum.csv.

python tools/registry_picture.py
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

RESULTS = Path(__file__).parents[1] / "docs" / "results"
BLUE, ORANGE = "#0072B2", "#D55E00"
RANDOM, DATA, CONTROLLER = (-1170, -1222, -1119), -470, -137
"""Mean returns of the page's first table; that of the random policy with its 95 % interval."""


class Run(NamedTuple):
    """The return of one seed, and the lower bound of its interval over episodes."""

    value: float
    low: float

    @property
    def beats_random(self) -> bool:
        """Whether the interval is above that of the random policy."""
        return self.low > RANDOM[2]


def read_runs(path: Path) -> dict[str, list[Run]]:
    """Algorithm -> its runs with the common settings, the best algorithm last."""
    found: dict[str, list[Run]] = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            if row["settings"] == "common":
                found[row["algorithm"]].append(Run(float(row["return"]), float(row["return_low"])))
    return dict(sorted(found.items(), key=lambda item: np.mean([run.value for run in item[1]])))


def draw(runs: dict[str, list[Run]]) -> Figure:
    """The figure: a row for each algorithm, with its seeds and their mean."""
    figure = Figure(figsize=(8.0, 11.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axvspan(*RANDOM[1:], color="0.85", linewidth=0)
    for x, style in ((RANDOM[0], "-"), (DATA, "--"), (CONTROLLER, ":")):
        axes.axvline(x, color="0.35", linewidth=1.2, linestyle=style, zorder=1)
    for y, seeds in enumerate(runs.values()):
        values = [run.value for run in seeds]
        color = BLUE if all(run.beats_random for run in seeds) else ORANGE
        axes.plot(values, [y] * len(values), "o", color=color, alpha=0.8, markersize=5)
        axes.plot([np.mean(values)] * 2, [y - 0.38, y + 0.38], color=color, linewidth=2.6)
    axes.set_yticks(range(len(runs)), list(runs), fontsize=8)
    axes.set_ylim(-0.7, len(runs) - 0.3)
    axes.set_xlabel("Return in Pendulum-v1, 20 episodes per seed")
    axes.set_title("2,500 steps: 3 seeds (dots) and their mean (bars)", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    handles = [
        Line2D([], [], color=BLUE, marker="o", linestyle="", label="every seed beats the random policy"),
        Line2D([], [], color=ORANGE, marker="o", linestyle="", label="some seed does not"),
        Patch(color="0.85", linewidth=0, label="95 % interval of the random policy"),
        Line2D([], [], color="0.35", label=f"random policy ({RANDOM[0]})"),
        Line2D([], [], color="0.35", linestyle="--", label=f"dataset ({DATA})"),
        Line2D([], [], color="0.35", linestyle=":", label=f"controller ({CONTROLLER})"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    draw(read_runs(RESULTS / "registry-pendulum.csv")).savefig(RESULTS / "registry-pendulum.png", dpi=160)
