"""Figures of the plane: data, samples, paths, velocity fields and values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from flowpolicies.toy.datasets import BOX, draw_points
from flowpolicies.toy.figures.frame import (
    REWARD_MAP,
    TITLES,
    VALUE_MAP,
    label_of,
    nearest_rewards,
    panels,
    reward_bar,
    show_box,
    show_data,
    top_reward,
    write,
)
from flowpolicies.toy.recording import COARSE, FINE, TIMES
from flowpolicies.toy.results import ToyResults, TrainedCell
from flowpolicies.toy.settings import Coefficient

SHOWN = 1000
"""Number of samples in a panel."""


def draw_data(results: ToyResults, path: Path) -> Path:
    """Points of each dataset by their reward."""
    figure, grid = panels(1, len(results.datasets), 2.3)
    for axes, dataset in zip(grid[0], results.datasets, strict=True):
        data = draw_points(dataset)
        chosen = np.random.default_rng(0).permutation(len(data.rewards))[:4000]
        style: dict[str, Any] = {"s": 2.5, "linewidths": 0, "cmap": REWARD_MAP, "vmin": 0, "vmax": 1}
        axes.scatter(*data.positions[chosen].T, c=data.rewards[chosen], rasterized=True, **style)
        show_box(axes, TITLES[dataset])
    reward_bar(figure, grid, 1.0)
    return write(figure, path)


def draw_samples(results: ToyResults, dataset: str, path: Path) -> Path:
    """Samples of each method, from behaviour cloning to the weakest regularisation, over the data."""
    values = results.kinds
    figure, grid = panels(len(results.methods), len(values), 1.85, (0.5, 0.9))
    data, top = draw_points(dataset), top_reward(draw_points(dataset))
    for row, method in zip(grid, results.methods, strict=True):
        for axes, value in zip(row, values, strict=True):
            found = results.get(dataset, method, value)
            if found is None:
                axes.set_axis_off()
                continue
            show_data(axes, dataset)
            samples = found.arrays["samples"][:SHOWN]
            style: dict[str, Any] = {"s": 4, "linewidths": 0, "cmap": REWARD_MAP, "vmin": 0, "vmax": top, "zorder": 2}
            axes.scatter(*samples.T, c=nearest_rewards(samples, data), rasterized=True, **style)
            show_box(axes, _title(found))
            axes.set_xlabel(_numbers(found), fontsize=7, color="0.3", labelpad=2)
        row[0].set_ylabel(label_of(method), fontsize=9.5)
    reward_bar(figure, grid, top, "reward of the nearest data point")
    return write(figure, path)


def draw_method(results: ToyResults, dataset: str, method: str, path: Path) -> Path:
    """One method: the data by reward, then paths and samples from the strongest regularisation to the weakest."""
    kinds = [kind for kind in results.kinds if results.get(dataset, method, kind)]
    shown = [*kinds[:1], *([kinds[1], kinds[-1]] if len(kinds) > 2 else kinds[1:])]
    figure, grid = panels(1, 1 + len(shown), 2.0)
    data, top = draw_points(dataset), top_reward(draw_points(dataset))
    style: dict[str, Any] = {"s": 2.5, "linewidths": 0, "cmap": REWARD_MAP, "vmin": 0, "vmax": top, "zorder": 2}
    chosen = np.random.default_rng(0).permutation(len(data.rewards))[:2000]
    grid[0][0].scatter(*data.positions[chosen].T, c=data.rewards[chosen], **style)
    show_box(grid[0][0], f"data ({TITLES[dataset]})")
    for axes, kind in zip(grid[0][1:], shown, strict=True):
        found = results.get(dataset, method, kind)
        assert found is not None
        show_data(axes, dataset)
        arrays = found.arrays
        if len(arrays["paths"]):
            states = arrays["paths"].transpose(1, 0, 2)
            axes.add_collection(LineCollection(list(states), colors="0.45", linewidths=0.4, alpha=0.45, zorder=1.5))
        samples = arrays["samples"][:SHOWN]
        axes.scatter(*samples.T, c=nearest_rewards(samples, data), **{**style, "s": 4})
        show_box(axes, _title(found))
        axes.set_xlabel(_numbers(found), fontsize=7, color="0.3", labelpad=2)
    reward_bar(figure, grid, top)
    return write(figure, path)


def _title(found: TrainedCell) -> str:
    field = {"guidance_lambda": "λ", "alpha": "α", "inv_temp": "τ"}
    value = found.cell.coefficient
    if isinstance(value, str):
        return {"cloning": "behaviour cloning", "default": "default hyperparameters"}[value]
    return f"{field.get(found.about['field'], found.about['field'])} = {value:g}"


def _flow(coefficient: Coefficient) -> str:
    return "behaviour flow" if isinstance(coefficient, str) else f"Q-Flow, λ = {coefficient:g}"


def _numbers(found: TrainedCell) -> str:
    measures = found.about["measures"]
    return f"reward {measures['reward']:.2f}, {100 * measures['off_support']:.0f} % off"


def draw_paths(results: ToyResults, dataset: str, path: Path) -> Path:
    """Paths from noise to action: the behaviour flow beside Q-Flow, from the same noise."""
    values = [kind for kind in results.kinds if kind != "default" and results.get(dataset, "qflow", kind)]
    figure, grid = panels(1, len(values), 2.3)
    data, top = draw_points(dataset), top_reward(draw_points(dataset))
    for axes, value in zip(grid[0], values, strict=True):
        found = results.get(dataset, "qflow", value)
        assert found is not None
        show_data(axes, dataset)
        states = found.arrays["paths"].transpose(1, 0, 2)
        axes.add_collection(LineCollection(list(states), colors="#0072B2", linewidths=0.6, alpha=0.55, zorder=2))
        axes.scatter(*states[:, 0].T, s=3, color="0.35", linewidths=0, zorder=3)
        ends = states[:, -1]
        style: dict[str, Any] = {"s": 14, "linewidths": 0.4, "edgecolors": "black", "cmap": REWARD_MAP, "zorder": 4}
        axes.scatter(*ends.T, c=nearest_rewards(ends, data), vmin=0, vmax=top, **style)
        show_box(axes, _flow(value), margin=2.5)
    reward_bar(figure, grid, top, "reward at the end")
    return write(figure, path)


def draw_velocity(results: ToyResults, dataset: str, path: Path) -> Path:
    """The velocity field at five flow times: the behaviour flow above Q-Flow with the weakest regularisation."""
    weakest = next((c for c in results.coefficients if results.get(dataset, "qflow", c)), None)
    values: list[Coefficient] = ["cloning"] if weakest is None else ["cloning", weakest]
    figure, grid = panels(len(values), len(TIMES), 1.9)
    for row, value in zip(grid, values, strict=True):
        found = results.get(dataset, "qflow", value)
        assert found is not None
        fields = found.arrays["velocity"]
        for axes, field, t in zip(row, fields, TIMES, strict=True):
            show_data(axes, dataset)
            _arrows(axes, field, scale=80, color="#0072B2" if value == "cloning" else "#D55E00")
            show_box(axes, f"t = {t:g}")
        row[0].set_ylabel(_flow(value), fontsize=9)
    return write(figure, path)


def draw_value(results: ToyResults, dataset: str, path: Path) -> Path:
    """The inner value over the box at five flow times with its gradient, and the critic on actions."""
    weakest = next((c for c in results.coefficients if results.get(dataset, "qflow", c)), None)
    found = results.get(dataset, "qflow", "cloning" if weakest is None else weakest)
    assert found is not None
    arrays = found.arrays
    figure, grid = panels(1, len(TIMES) + 1, 1.9)
    bounds = {"vmin": 0.0, "vmax": float(max(arrays["value"].max(), 0.1))}
    stride = (FINE - 1) // 10
    for axes, value, slope, t in zip(grid[0], arrays["value"], arrays["value_gradient"], TIMES, strict=False):
        image = axes.imshow(value, origin="lower", extent=(-BOX, BOX, -BOX, BOX), cmap=VALUE_MAP, **bounds)
        steep = max(float(np.quantile(np.abs(slope), 0.98)), 1e-6)
        _arrows(axes, slope[::stride, ::stride], scale=8 * steep, color="white")
        show_box(axes, f"V at t = {t:g}", margin=0)
    axes = grid[0][-1]
    axes.imshow(arrays["critic"], origin="lower", extent=(-BOX, BOX, -BOX, BOX), cmap=VALUE_MAP, **bounds)
    show_box(axes, "critic Q", margin=0)
    bar = figure.colorbar(image, ax=grid, shrink=0.7, pad=0.01, aspect=20)
    bar.ax.tick_params(labelsize=7)
    grid[0][0].set_ylabel(_flow(found.cell.coefficient), fontsize=9)
    return write(figure, path)


def _arrows(axes: Axes, field: np.ndarray, scale: float, color: str) -> None:
    """Arrows of a field `[N, N, 2]` over the box."""
    side = np.linspace(-BOX, BOX, len(field))
    x, y = np.meshgrid(side, side)
    stride = 2 if len(field) == COARSE else 1
    x, y, field = x[::stride, ::stride], y[::stride, ::stride], field[::stride, ::stride]
    longest = scale / 5  # A fifth of the panel.
    field = field / np.maximum(1, np.linalg.norm(field, axis=-1, keepdims=True) / longest)
    axes.quiver(x, y, field[..., 0], field[..., 1], color=color, scale=scale, width=0.007, zorder=3)
