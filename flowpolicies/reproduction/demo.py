"""The demo: make a dataset, train Q-Flow and BC, evaluate and fine-tune them, and write a table and a figure.

The work is done by commands of this package, which run side by side and are recorded with the results. A demo that was
interrupted continues where it stopped; for a demo that is finished only the table is printed again.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from flowpolicies.data import generate_dataset
from flowpolicies.files import atomic_write, write_json
from flowpolicies.policies.evaluation import Interval, success_interval
from flowpolicies.record import describe_hardware, describe_software
from flowpolicies.reproduction.demo_settings import DemoSettings as DemoSettings
from flowpolicies.reproduction.jobs import Job, Outcome, flags, run_side_by_side
from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.training.plots import plot_learning_curves
from flowpolicies.training.runs import RunFolder


class DemoRun(NamedTuple):
    """A training run of the demo, and the evaluation that follows it."""

    folder: RunFolder
    commands: tuple[tuple[str, ...], ...]
    """Command lines, run one after another, each without the program's name."""
    steps: int
    """Gradient steps and environment steps together, for the progress bar."""
    result: Path
    """File that exists when all commands are done."""

    @property
    def job(self) -> Job:
        """The commands as a job whose output goes to a file beside the folder."""
        name = self.folder.path.name
        return Job(name, self.commands, self.folder.path.parent / f"{name}.log")


def run_demo(settings: DemoSettings) -> Path:
    """Runs what is not done yet, prints the table, and returns the folder with the results.

    Raises:
        RuntimeError: if a command failed; the message names its log.
        ValueError: if the folder holds a demo with other settings.
    """
    began = time.time()
    _check_settings(settings)
    data_dir = generate_dataset(
        address(settings, settings.tasks[0]),
        num_episodes=settings.episodes,
        seed=settings.seed,
        workers=settings.workers,
        data_dir=settings.data_dir.expanduser() / f"{settings.episodes}-episodes-seed{settings.seed}",
    ).parent
    runs = make_runs(settings, data_dir)
    run_all([run for run in runs if not run.result.is_file()], settings.workers)
    results = gather_results(settings, runs)
    results |= {"software": describe_software(), "hardware": describe_hardware(), "minutes": (time.time() - began) / 60}
    if not (settings.run_dir / "results.json").is_file():
        write_json(settings.run_dir / "results.json", results)
    _draw(settings, runs, results)
    table = make_table(settings, results)
    with atomic_write(settings.run_dir / "table.txt") as file:
        file.write(_render(table).encode())
    Console().print(table)
    print(f"{(time.time() - began) / 60:.1f} minutes. Table, curves, metrics and policies are in {settings.run_dir}/")
    print(f"Roll one out: flowpolicies evaluate {runs[1].folder.path} --env {address(settings, settings.tasks[0])}")
    return settings.run_dir


def address(settings: DemoSettings, task: int) -> str:
    """Address of the dataset and the environment of a task."""
    return f"ogbench:{settings.dataset}-singletask-task{task}-v0"


def _check_settings(settings: DemoSettings) -> None:
    """Raises an error if the folder holds a demo with other settings, else writes the settings into it."""
    path, mine = settings.run_dir / "settings.json", json.loads(json.dumps(asdict(settings), default=str))
    for name in ("workers", "data_dir", "run_dir"):
        mine.pop(name)
    if path.is_file() and json.loads(path.read_text()) != mine:
        raise ValueError(
            f"{settings.run_dir}/ holds a demo with other settings. Choose another --run-dir, or delete the folder."
        )
    write_json(path, mine)


def make_runs(settings: DemoSettings, data_dir: Path) -> list[DemoRun]:
    """The run of BC, then one run of Q-Flow for each task."""
    first = address(settings, settings.tasks[0])
    bc = RunFolder(settings.run_dir / "bc")
    found = settings.run_dir / "bc" / "tasks.json"
    envs = [address(settings, task) for task in settings.tasks]
    evaluation = ("evaluate", str(bc.path), "--env", *envs, "--episodes", str(settings.eval_episodes))
    commands = (
        _train(settings, "bc", first, data_dir, bc, settings.bc_steps, eval_episodes=0),
        (*evaluation, "--seed", str(settings.seed), "--json", str(found)),
    )
    runs = [DemoRun(bc, commands, settings.bc_steps, found)]
    for task in settings.tasks:
        folder = RunFolder(settings.run_dir / f"qflow-task{task}")
        command = _train(settings, "qflow", address(settings, task), data_dir, folder, settings.steps)
        runs.append(DemoRun(folder, (command,), settings.steps + settings.online_steps, folder.model))
    return runs


def _train(
    settings: DemoSettings,
    algorithm: str,
    dataset: str,
    data_dir: Path,
    folder: RunFolder,
    steps: int,
    eval_episodes: int | None = None,
) -> tuple[str, ...]:
    width = (settings.width, settings.width)
    values: dict[str, Any] = {
        "dataset": dataset,
        "data_dir": data_dir,
        "run_dir": folder.path,
        "resume": True,
        "steps": steps,
        "seed": settings.seed,
        "log_every": 100,
        "eval_every": settings.eval_every,
        "checkpoint_every": 2000,
        "eval_episodes": settings.eval_episodes if eval_episodes is None else eval_episodes,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "horizon": settings.horizon,
        "flow_steps": settings.flow_steps,
        "actor_hidden_dims": width,
    }
    if algorithm == "qflow":
        values |= {name: getattr(settings, name) for name in ("online_steps", "gamma", "tau", "guidance_lambda")}
        values |= {"value_hidden_dims": width}
    return ("train", algorithm, *flags(values))


def run_all(runs: Sequence[DemoRun], workers: int) -> None:
    """Runs the commands side by side, with one progress bar for all of them.

    After Ctrl-C the commands save their checkpoints and stop.

    Raises:
        RuntimeError: if a command fails; the other ones are then interrupted as well.
    """
    ended: set[str] = set()
    total = sum(run.steps for run in runs)
    with tqdm(total=total, desc="training", unit="step", dynamic_ncols=True, disable=not runs) as bar:

        def announce(job: Job) -> None:
            tqdm.write(f"{job.name}: flowpolicies {shlex.join(job.commands[0])}")

        def report(outcome: Outcome) -> None:
            _check(outcome)
            ended.add(outcome.job.name)

        def advance() -> None:
            done = sum(run.steps if run.job.name in ended else _steps_done(run) for run in runs)
            bar.update(done - bar.n)

        jobs = [run.job for run in runs]
        run_side_by_side(jobs, workers, report, threads=1, starting=announce, watch=advance, watch_seconds=0.5)


def _check(outcome: Outcome) -> None:
    """Raises an error with the end of the log if a job failed."""
    job = outcome.job
    if outcome.code != 0:
        tail = "\n".join(job.log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{job.name} failed with exit code {outcome.code}; the end of {job.log}:\n{tail}")


def _steps_done(run: DemoRun) -> int:
    """Steps of an unfinished run so far, from its `progress.csv`."""
    try:
        header, *rows = run.folder.progress.read_text().splitlines()
    except (FileNotFoundError, ValueError):
        return 0
    columns = [i for i, name in enumerate(header.split(",")) if name in ("time/offline_steps", "time/total_timesteps")]
    last = [max((float(cell) for row in rows if (cell := _column(row, i))), default=0.0) for i in columns]
    return min(int(sum(last)), run.steps)


def _column(row: str, column: int) -> str:
    """One column of a line of CSV, empty if the line is not complete yet."""
    cells = row.split(",")
    return cells[column] if column < len(cells) else ""


def gather_results(settings: DemoSettings, runs: Sequence[DemoRun]) -> dict[str, Any]:
    """For each task, successes and episodes of BC and of Q-Flow before and after fine-tuning."""
    bc = json.loads(runs[0].result.read_text())
    results: dict[str, Any] = {"bc": {}, "qflow offline": {}, "qflow fine-tuned": {}}
    for task in settings.tasks:
        found = bc["environments"][address(settings, task)]
        counts = {"successes": int(sum(found["successes"])), "episodes": found["episodes"], "length": found["length"]}
        results["bc"][str(task)] = counts
    for task, run in zip(settings.tasks, runs[1:], strict=True):
        rows = run.folder.read_evaluations()
        for label, phase in (("qflow offline", "offline"), ("qflow fine-tuned", "online")):
            last = [row for row in rows if row.phase == phase][-1:]
            results[label] |= {str(task): _counts(row) for row in last}
    results["commands"] = [shlex.join(("flowpolicies", *command)) for run in runs for command in run.commands]
    return results


def _counts(row: EvaluationRow) -> dict[str, float]:
    return {"successes": round(row.success * row.episodes), "episodes": row.episodes, "length": row.length}


def pooled(results: dict[str, Any], label: str) -> Interval:
    """Success rate over the episodes of all tasks, with its 95 % Wilson interval."""
    counts = results[label].values()
    return success_interval(sum(c["successes"] for c in counts), sum(c["episodes"] for c in counts))


def make_table(settings: DemoSettings, results: dict[str, Any]) -> Table:
    """Table of the success rates in percent with their 95 % intervals, and of the mean episode lengths in steps."""
    labels = [label for label in ("bc", "qflow offline", "qflow fine-tuned") if results[label]]
    names = {"bc": "BC", "qflow offline": "Q-Flow, offline", "qflow fine-tuned": "Q-Flow, fine-tuned"}
    table = Table(title=f"{settings.dataset}: success in % [95 % interval], mean episode length in steps")
    table.add_column("task")
    for label in labels:
        table.add_column(names[label], justify="right")
    for task in map(str, settings.tasks):
        cells = [results[label][task] for label in labels]
        found = [(success_interval(c["successes"], c["episodes"]), c["length"]) for c in cells]
        table.add_row(task, *(f"{_percent(success)}, {length:.0f}" for success, length in found))
    lengths = [sum(c["length"] for c in results[label].values()) / len(results[label]) for label in labels]
    overall = [
        f"{_percent(pooled(results, label))}, {length:.0f}" for label, length in zip(labels, lengths, strict=True)
    ]
    table.add_row("all", *overall, style="bold")
    return table


def _percent(interval: Interval) -> str:
    mean, low, high = (round(100 * value) for value in interval)
    return f"{mean} [{low}, {high}]"


def _render(table: Table) -> str:
    console = Console(width=110, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def _draw(settings: DemoSettings, runs: Sequence[DemoRun], results: dict[str, Any]) -> None:
    """Draws the learning curve of Q-Flow, the mean over all tasks, and the one evaluation of BC."""
    rows = [row for run in runs[1:] for row in run.folder.read_evaluations()]
    success, nan = pooled(results, "bc"), float("nan")
    n = sum(c["episodes"] for c in results["bc"].values())
    bc = EvaluationRow("offline", settings.bc_steps, n, *success, nan, nan, nan, nan)
    title = f"{settings.dataset}, mean over {len(settings.tasks)} tasks"
    plot_learning_curves({"Q-Flow": rows, "BC": [bc]}, settings.run_dir / "learning_curve.png", title=title)
