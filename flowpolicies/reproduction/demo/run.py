"""The demo: make a dataset, train Q-Flow and BC, evaluate and fine-tune them, and write a table and pictures.

The work is done by commands of this package, which run side by side and are recorded with the results. A demo that was
interrupted continues where it stopped; for a demo that is finished only the table is printed again.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from flowpolicies.data import generate_dataset, load_dataset
from flowpolicies.files import atomic_write, write_json
from flowpolicies.record import describe_hardware, describe_software
from flowpolicies.reproduction.demo.maze import (
    check_maze,
    episode_paths,
    load_paths,
    parse_cell,
    read_maze,
    roll_out,
    save_paths,
    write_unseen_data,
)
from flowpolicies.reproduction.demo.pictures import Bars, Panel, draw_paths, draw_rollout, draw_success
from flowpolicies.reproduction.demo.progress import run_all
from flowpolicies.reproduction.demo.results import (
    LABELS,
    UNSEEN,
    as_markdown,
    as_text,
    curves,
    gather_results,
    make_table,
    pooled,
    success_of,
)
from flowpolicies.reproduction.demo.runs import DemoRun, address, checkpoint, folder_of, make_runs
from flowpolicies.reproduction.demo.settings import DemoSettings
from flowpolicies.reproduction.jobs import flags
from flowpolicies.training.plots import COLORS, plot_learning_curves

PALETTE = {"qflow offline": COLORS[0], "bc": COLORS[1], "qflow fine-tuned": COLORS[2]}
"""Colours of the entries of the results, the same in all pictures."""

PATHS = 10
"""Number of episodes in each panel of the picture of paths."""


def run_demo(settings: DemoSettings) -> Path:
    """Runs what is not done yet, prints the table, and returns the folder with the results.

    Raises:
        RuntimeError: if a command failed; the message names its log.
        ValueError: if the folder holds a demo with other settings, the dataset is not one of a maze, or a cell that is
            to be left out is not free.
    """
    began, folder = time.time(), settings.run_dir
    check_maze(read_maze(address(settings, settings.unseen_task), settings.unseen_task), settings.unseen)
    _check_settings(settings)
    data_dir = generate_dataset(
        address(settings, settings.tasks[0]),
        num_episodes=settings.episodes,
        seed=settings.seed,
        workers=settings.workers,
        data_dir=settings.data_dir.expanduser() / f"{settings.episodes}-episodes-seed{settings.seed}",
    ).parent
    unseen = _unseen_data(settings, data_dir)
    runs = make_runs(settings, data_dir, unseen)
    is_continued = any(run.folder.path.exists() for run in runs)
    run_all([run for run in runs if not run.result.is_file()], settings.workers)
    results = _results(settings, runs, began, is_continued=is_continued)
    draw(settings, results, data_dir, unseen)
    table = make_table(settings, results)
    for name, text in (("table.txt", as_text(table)), ("table.md", as_markdown(table))):
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    Console().print(table)
    print(f"{(time.time() - began) / 60:.1f} minutes. Pictures (*.png, *.gif), results.json and the runs: {folder}/")
    print("\n".join(what_next(settings, data_dir)))
    return folder


def _check_settings(settings: DemoSettings) -> None:
    """Raises an error if the folder holds a demo with other settings, else writes the settings into it."""
    path, mine = settings.run_dir / "settings.json", json.loads(json.dumps(asdict(settings), default=str))
    for name in ("workers", "data_dir", "run_dir", "compile"):
        mine.pop(name)
    if path.is_file() and json.loads(path.read_text()) != mine:
        raise ValueError(
            f"{settings.run_dir}/ holds a demo with other settings. Choose another --run-dir, or delete the folder."
        )
    write_json(path, mine)


def _unseen_data(settings: DemoSettings, data_dir: Path) -> Path | None:
    if not settings.unseen:
        return None
    return write_unseen_data(address(settings, settings.unseen_task), settings.unseen_task, settings.unseen, data_dir)


def _results(settings: DemoSettings, runs: Sequence[DemoRun], began: float, *, is_continued: bool) -> dict[str, Any]:
    """The results, which are written once, with the minutes since this command began."""
    path = settings.run_dir / "results.json"
    if not path.is_file():
        found = gather_results(settings, runs) | {"software": describe_software(), "hardware": describe_hardware()}
        write_json(path, found | {"minutes": (time.time() - began) / 60, "continued": is_continued})
    return dict(json.loads(path.read_text()))


def what_next(settings: DemoSettings, data_dir: Path) -> list[str]:
    """Lines that say what to try next, each with a command."""
    first = settings.tasks[0]
    hidden = (settings.width,) * settings.layers
    values = {"dataset": address(settings, first), "data_dir": data_dir, "steps": settings.steps}
    values |= {name: getattr(settings, name) for name in ("eval_every", "eval_episodes", "gamma", "tau")}
    values |= settings.hyperparameters("bc") | {"value_hidden_dims": hidden, "ensemble": 2, "rho": 0.0, "inv_temp": 1.0}
    return [
        "Try next:",
        f"  flowpolicies evaluate {folder_of(settings, first).path} --episodes 50   (the policy of task {first})",
        "  flowpolicies demo --dataset pointmaze-large-navigate --unseen --run-dir runs/demo-large   (a larger maze)",
        f"  flowpolicies train qam {shlex.join(flags(values))}   (another algorithm on the data of task {first})",
    ]


def draw(settings: DemoSettings, results: Mapping[str, Any], data_dir: Path, unseen_data: Path | None) -> None:
    """Draws the pictures that do not exist yet."""
    folder = settings.run_dir
    if not (path := folder / "success.png").is_file():
        _draw_success(settings, results, path)
    if not (path := folder / "learning_curve.png").is_file():
        title = f"{settings.dataset}, mean over {len(settings.tasks)} tasks"
        plot_learning_curves(curves(settings), path, title=title)
    if not (path := folder / "paths.png").is_file():
        draw_paths(list(make_panels(settings, data_dir, unseen_data).values()), path)
    if not (path := folder / "rollout.gif").is_file():
        panels = make_panels(settings, data_dir, unseen_data)
        draw_rollout([_typical(panels[name]) for name in list(panels)[-2:]], path)


def _draw_success(settings: DemoSettings, results: Mapping[str, Any], path: Path) -> None:
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
    draw_success(shown, bars, path, settings.dataset, note)


def make_panels(settings: DemoSettings, data_dir: Path, unseen_data: Path | None) -> dict[str, Panel]:
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
    shown = {
        "behaviour": Panel(
            f"Behaviour:\n{PATHS} episodes of the data", mazes[first], paths["behaviour"], "0.35", has_task=False
        ),
        "offline": Panel(f"Task {first}:\nQ-Flow, offline", mazes[first], paths["offline"], PALETTE["qflow offline"]),
        "before": Panel(f"{start}:\nQ-Flow, offline", mazes[last], paths["before"], PALETTE["qflow offline"], cells),
        "after": Panel(f"{start}:\nfine-tuned", mazes[last], paths["after"], PALETTE["qflow fine-tuned"], cells),
    }
    return {name: panel for name, panel in shown.items() if cells or name != "offline"}


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
