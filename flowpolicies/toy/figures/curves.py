"""Figures of curves: flow consistency, gradient norms and costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from flowpolicies.toy.figures.frame import PALE, TITLES, color_of, label_of, panels, write
from flowpolicies.toy.recording import CONSISTENCY_TIMES
from flowpolicies.toy.results import ToyResults


def draw_consistency(results: ToyResults, path: Path) -> Path:
    """|V(Psi(x_t), 1) - V(x_t, t)| against t, a panel for each dataset, a curve for each coefficient."""
    figure, grid = panels(1, len(results.datasets), 2.4, (0.6, 0.35))
    for axes, dataset in zip(grid[0], results.datasets, strict=True):
        for number, value in enumerate(results.coefficients):
            found = results.get(dataset, "qflow", value)
            if found is not None:
                mean, low, high = found.arrays["consistency"].T
                axes.plot(CONSISTENCY_TIMES, mean, color=color_of(number), linewidth=1.4, label=f"λ = {value:g}")
                axes.fill_between(CONSISTENCY_TIMES, low, high, color=color_of(number), alpha=0.12, linewidth=0)
        _dress(axes, TITLES[dataset], "flow time t")
        axes.set_ylim(bottom=0)
    grid[0][0].set_ylabel("|V(Ψ(x), 1) − V(x, t)|", fontsize=8.5)
    handles, labels = grid[0][0].get_legend_handles_labels()
    across = 2 * len(results.datasets)  # As many as there is space for.
    figure.legend(handles, labels, loc="outside lower center", ncols=across, frameon=False, fontsize=8)
    return write(figure, path)


def draw_gradients(results: ToyResults, path: Path) -> Path:
    """Norm of the gradient of the loss with the coefficient, in training: a row for each dataset, a column for each
    method, a curve for each coefficient."""
    swept = [
        m for m in results.methods if any(results.all(d, m, c) for d in results.datasets for c in results.coefficients)
    ]
    figure, grid = panels(len(results.datasets), len(swept), 2.1, (0.7, 0.4))
    for i, j in np.ndindex(grid.shape):
        axes, dataset, method = grid[i, j], results.datasets[i], swept[j]
        for number, value in enumerate(results.coefficients):
            found = results.get(dataset, method, value)
            if found is not None:
                x = [line["update"] for line in found.about["log"]]
                y = [max(policy_gradient(line), 1e-8) for line in found.about["log"]]
                axes.semilogy(x, y, color=color_of(number), linewidth=1.3, label=f"coefficient {value:g}")
        if j > 0:
            axes.sharey(grid[i, 0])
        _dress(axes, label_of(method) if i == 0 else "", "update" if i == len(grid) - 1 else "")
        if j == 0:
            axes.set_ylabel(f"{TITLES[dataset]}\ngradient norm", fontsize=8.5)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2 * len(swept), frameon=False, fontsize=8)
    return write(figure, path)


def policy_gradient(line: dict[str, float]) -> float:
    """The norm of the gradient of the actor's loss in a line of a log; of the largest loss without one."""
    norms = {name: value for name, value in line.items() if name.endswith("/grad_norm")}
    return norms.get("actor/grad_norm", max(norms.values()))


def draw_costs(results: ToyResults, path: Path) -> Path:
    """Milliseconds per update against the number of flow steps."""
    figure, grid = panels(1, 1, 3.2, (1.4, 0.2))
    axes = grid[0][0]
    for number, (method, each) in enumerate(results.costs.items()):
        x, y = [int(steps) for steps in each], list(each.values())
        axes.plot(x, y, "o-", color=color_of(number), linewidth=1.5, markersize=4, label=label_of(method))
    _dress(axes, "", "flow steps")
    axes.set_ylabel("ms per update", fontsize=8.5)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=8.5)
    return write(figure, path)


def _dress(axes: Axes, title: str, x_label: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x_label, fontsize=8.5)
    axes.tick_params(labelsize=7.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
