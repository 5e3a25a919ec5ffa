"""The demo: make a dataset, train Q-Flow and BC, evaluate and fine-tune them, and write a table and pictures.

The work is done by commands of this package, which run side by side and are recorded with the results. A demo that was
interrupted continues where it stopped; for a demo that is finished only the table is printed again.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from flowpolicies.data import generate_dataset
from flowpolicies.files import atomic_write, write_json
from flowpolicies.record import describe_hardware, describe_software
from flowpolicies.reproduction.demo.drawing import draw
from flowpolicies.reproduction.demo.maze import check_maze, read_maze, write_unseen_data
from flowpolicies.reproduction.demo.progress import run_all
from flowpolicies.reproduction.demo.results import as_markdown, as_text, gather_results, make_table
from flowpolicies.reproduction.demo.runs import DemoRun, address, folder_of, make_runs
from flowpolicies.reproduction.demo.settings import DemoSettings
from flowpolicies.reproduction.jobs import flags


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
