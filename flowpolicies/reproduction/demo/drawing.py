"""The pictures of a finished demo: what they show, from its results and from episodes of its policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from flowpolicies.data import load_dataset
from flowpolicies.reproduction.demo.maze import episode_paths, load_paths, parse_cell, read_maze, roll_out, save_paths
from flowpolicies.reproduction.demo.pictures import Bars, Panel, draw_paths, draw_rollout, draw_success
from flowpolicies.reproduction.demo.results import LABELS, UNSEEN, curves, pooled, success_of
from flowpolicies.reproduction.demo.runs import address, checkpoint, folder_of
from flowpolicies.reproduction.demo.settings import DemoSettings
from flowpolicies.training.plots import COLORS, plot_learning_curves

PALETTE = {"qflow offline": COLORS[0], "bc": COLORS[1], "qflow fine-tuned": COLORS[2]}
"""Colours of the entries of the results, the same in all pictures."""

PATHS = 10
"""Number of episodes in each panel of the picture of paths."""


def draw(settings: DemoSettings, results: Mapping[str, Any], data_dir: Path, unseen_data: Path | None) -> None:
    """Draws the pictures that do not exist yet."""

    def panels() -> list[Panel]:
        return make_panels(settings, data_dir, unseen_data)

    title = f"{settings.dataset}, mean over {len(settings.tasks)} tasks"
    pictures: dict[str, Callable[[Path], Path]] = {
        "success.png": lambda path: _draw_success(settings, results, path),
        "learning_curve.png": lambda path: plot_learning_curves(curves(settings), path, title=title, runs="tasks"),
        "paths.png": lambda path: draw_paths(panels(), path),
        "rollout.gif": lambda path: draw_rollout(list(map(_typical, panels()[-2:])), path),
    }
    missing = [name for name in pictures if not (settings.run_dir / name).is_file()]
    for name in tqdm(missing, desc="drawing", unit="picture", disable=not missing):
        pictures[name](settings.run_dir / name)


def _draw_success(settings: DemoSettings, results: Mapping[str, Any], path: Path) -> Path:
    groups = {str(task): f"task {task}" for task in settings.tasks} | {UNSEEN: f"task {settings.unseen_task},\nunseen"}
    bars = []
    for label in filter(results.get, LABELS):
        found = {groups[key]: success_of(counts) for key, counts in results[label].items()}
        if all(str(task) in results[label] for task in settings.tasks):
            found["all\ntasks"] = success_of(pooled(settings, results, label))
        bars.append(Bars(LABELS[label], PALETTE[label], found))
    unseen = [groups[UNSEEN]] if settings.unseen else []
    shown = [*(groups[str(task)] for task in settings.tasks), "all\ntasks", *unseen]
    note = f"95 % intervals over {settings.eval_episodes} episodes of each task"
    if unseen:
        note += f"; unseen: data without the cells where task {settings.unseen_task} starts"
    return draw_success(shown, bars, path, settings.dataset, note)


def make_panels(settings: DemoSettings, data_dir: Path, unseen_data: Path | None) -> list[Panel]:
    """The panels of the picture of paths: behaviour, Q-Flow, and Q-Flow from the unseen start before and after.

    Without an unseen start the last two are the first task before and after fine-tuning.
    """
    first, hard = settings.tasks[0], UNSEEN if unseen_data is not None else settings.tasks[0]
    last = settings.unseen_task if unseen_data is not None else first
    mazes = {task: read_maze(address(settings, task), task) for task in (first, last)}
    path = settings.run_dir / "paths.npz"
    if not path.is_file():
        save_paths(path, _roll_out_all(settings, data_dir, first, hard, last))
    paths = load_paths(path)
    cells = tuple(map(parse_cell, settings.unseen)) if unseen_data is not None else ()
    start = f"Task {last}, start not in the data" if cells else f"Task {last}"
    offline, tuned = PALETTE["qflow offline"], PALETTE["qflow fine-tuned"]
    behaviour = Panel(
        f"Behaviour:\n{PATHS} episodes of the data", mazes[first], paths["behaviour"], "0.35", has_task=False
    )
    whole = Panel(f"Task {first}:\nQ-Flow, offline", mazes[first], paths["offline"], offline)
    before = Panel(f"{start}:\nQ-Flow, offline", mazes[last], paths["before"], offline, cells)
    after = Panel(f"{start}:\nfine-tuned", mazes[last], paths["after"], tuned, cells)
    return [behaviour, whole, before, after] if cells else [behaviour, before, after]


def _roll_out_all(
    settings: DemoSettings, data_dir: Path, first: int, hard: Any, last: int
) -> dict[str, list[np.ndarray]]:
    data = load_dataset(address(settings, first), data_dir=data_dir)
    policies = {
        "offline": (checkpoint(folder_of(settings, first), settings.steps), first),
        "before": (checkpoint(folder_of(settings, hard), settings.steps), last),
        "after": (folder_of(settings, hard).policy, last),
    }
    found = {"behaviour": episode_paths(data, PATHS)}
    for name, (policy, task) in policies.items():
        found[name] = roll_out(policy, address(settings, task), PATHS, settings.seed)
    return found


def _typical(panel: Panel) -> Panel:
    """The panel with its episode of median length only."""
    order = sorted(range(len(panel.paths)), key=lambda i: len(panel.paths[i]))
    return panel._replace(paths=[panel.paths[order[len(order) // 2]]])
