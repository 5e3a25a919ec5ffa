"""The main job on data it makes itself: data, Q-Flow beside BC, evaluation, fine-tuning, a table and a picture.

Everything is done by this package's own commands, which run side by side and are written down with the results; a demo
that was interrupted goes on where it stopped, and one that is done is only printed again.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from flowpolicies.data import generate_dataset
from flowpolicies.files import atomic_write, write_json
from flowpolicies.policies.evaluation import Interval, success_interval
from flowpolicies.reproduction.jobs import flags, start, stop
from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.training.plots import plot_learning_curves
from flowpolicies.training.record import describe_hardware, describe_software
from flowpolicies.training.runs import RunFolder


@final
@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What the demo does; the README says why these numbers."""

    dataset: str = "pointmaze-medium-navigate"
    """OGBench dataset to make, with OGBench's own scripted oracle."""
    episodes: int = 500
    """Training episodes of the dataset, of 1,001 steps each (OGBench's file has 1,000)."""
    tasks: tuple[int, ...] = (1, 2, 3, 5)
    """OGBench's tasks: start and goal. Q-Flow trains once per task, because each has its own reward; BC once."""
    steps: int = 8000
    """Offline gradient steps of Q-Flow."""
    bc_steps: int = 3000
    """Gradient steps of BC."""
    online_steps: int = 2000
    """Environment steps of fine-tuning, per task."""
    eval_every: int = 2000
    """Steps between two evaluations."""
    eval_episodes: int = 20
    """Episodes per evaluation and task."""
    horizon: int = 20
    """Length of action chunks."""
    guidance_lambda: float = 2.0
    """Q-Flow's lambda."""
    width: int = 128
    """Width of the two hidden layers of every network."""
    flow_steps: int = 5
    """Euler steps of the flow."""
    batch_size: int = 128
    """Chunks per gradient step."""
    learning_rate: float = 1e-3
    """Of Adam."""
    gamma: float = 0.995
    """Discount per environment step."""
    tau: float = 0.02
    """Polyak rate of the target critics."""
    seed: int = 0
    """Of the data and of every run."""
    workers: int = 2
    """Commands that run side by side, with one thread each."""
    data_dir: Path = Path("~/.cache/flowpolicies/demo")
    """Where the data is kept for the next time."""
    run_dir: Path = Path("runs/demo")
    """Where results go."""


class Job(NamedTuple):
    """A run, and what to do after it."""

    folder: RunFolder
    commands: tuple[tuple[str, ...], ...]
    steps: int
    """Gradient steps and environment steps, for the progress bar."""
    result: Path
    """Exists when the job is done."""


def run_demo(settings: DemoSettings) -> Path:
    """Runs what is not done yet, prints the table, and returns the folder of the results.

    Raises:
        RuntimeError: if a command failed; its log is named.
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
    jobs = make_jobs(settings, data_dir)
    run_jobs([job for job in jobs if not job.result.is_file()], settings.workers)
    results = collect(settings, jobs)
    results |= {"software": describe_software(), "hardware": describe_hardware(), "minutes": (time.time() - began) / 60}
    if not (settings.run_dir / "results.json").is_file():
        write_json(settings.run_dir / "results.json", results)
    _draw(settings, jobs, results)
    table = make_table(settings, results)
    with atomic_write(settings.run_dir / "table.txt") as file:
        file.write(_render(table).encode())
    Console().print(table)
    print(f"{(time.time() - began) / 60:.1f} minutes. Table, curves, metrics and policies are in {settings.run_dir}/")
    print(f"Roll one out: flowpolicies evaluate {jobs[1].folder.path} --env {address(settings, settings.tasks[0])}")
    return settings.run_dir


def address(settings: DemoSettings, task: int) -> str:
    """Address of a task's data and environment."""
    return f"ogbench:{settings.dataset}-singletask-task{task}-v0"


def _check_settings(settings: DemoSettings) -> None:
    """One folder, one demo."""
    path, mine = settings.run_dir / "settings.json", json.loads(json.dumps(asdict(settings), default=str))
    for name in ("workers", "data_dir", "run_dir"):
        mine.pop(name)
    if path.is_file() and json.loads(path.read_text()) != mine:
        raise ValueError(
            f"{settings.run_dir}/ holds a demo with other settings. Choose another --run-dir, or delete the folder."
        )
    write_json(path, mine)


def make_jobs(settings: DemoSettings, data_dir: Path) -> list[Job]:
    """BC first, then Q-Flow for every task."""
    first = address(settings, settings.tasks[0])
    bc = RunFolder(settings.run_dir / "bc")
    found = settings.run_dir / "bc" / "tasks.json"
    envs = [address(settings, task) for task in settings.tasks]
    evaluation = ("evaluate", str(bc.path), "--env", *envs, "--episodes", str(settings.eval_episodes))
    commands = (
        _train(settings, "bc", first, data_dir, bc, settings.bc_steps, eval_episodes=0),
        (*evaluation, "--seed", str(settings.seed), "--json", str(found)),
    )
    jobs = [Job(bc, commands, settings.bc_steps, found)]
    for task in settings.tasks:
        folder = RunFolder(settings.run_dir / f"qflow-task{task}")
        command = _train(settings, "qflow", address(settings, task), data_dir, folder, settings.steps)
        jobs.append(Job(folder, (command,), settings.steps + settings.online_steps, folder.model))
    return jobs


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


class _Running(NamedTuple):
    """A job, and the process of one of its commands."""

    job: Job
    process: subprocess.Popen[bytes]
    left: tuple[tuple[str, ...], ...]
    """Commands that come after the running one."""


def run_jobs(jobs: Sequence[Job], workers: int) -> None:
    """Runs jobs side by side, with one bar for all of them; after Ctrl-C the commands save and stop."""
    waiting, running = list(jobs), list[_Running]()
    bar = tqdm(total=sum(job.steps for job in jobs), desc="training", unit="step", dynamic_ncols=True, disable=not jobs)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                tqdm.write(f"{job.folder.path.name}: flowpolicies {shlex.join(job.commands[0])}")
                running.append(_start(job, job.commands))
            time.sleep(0.5)
            for ended in [one for one in running if one.process.poll() is not None]:
                running.remove(ended)
                running += _following(ended)
            unfinished = {job.folder for job in waiting} | {one.job.folder for one in running}
            done = sum(_steps_done(job) if job.folder in unfinished else job.steps for job in jobs)
            bar.update(done - bar.n)
    finally:
        stop([one.process for one in running])
        bar.close()


def _start(job: Job, commands: tuple[tuple[str, ...], ...]) -> _Running:
    process = start(commands[0], _log(job), {**os.environ, "OMP_NUM_THREADS": "1"})
    return _Running(job, process, commands[1:])


def _log(job: Job) -> Path:
    return job.folder.path.parent / f"{job.folder.path.name}.log"


def _following(ended: _Running) -> list[_Running]:
    """The next command of a job, if there is one.

    Raises:
        RuntimeError: if the last one failed.
    """
    job, process, left = ended
    if process.returncode != 0:
        tail = "\n".join(_log(job).read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(
            f"{job.folder.path.name} failed with exit code {process.returncode}; the end of {_log(job)}:\n{tail}"
        )
    return [_start(job, left)] if left else []


def _steps_done(job: Job) -> int:
    """Steps of a running job, from its log."""
    try:
        header, *rows = job.folder.progress.read_text().splitlines()
    except (FileNotFoundError, ValueError):
        return 0
    columns = [i for i, name in enumerate(header.split(",")) if name in ("time/offline_steps", "time/total_timesteps")]
    last = [max((float(cell) for row in rows if (cell := _cell(row, i))), default=0.0) for i in columns]
    return min(int(sum(last)), job.steps)


def _cell(row: str, column: int) -> str:
    cells = row.split(",")
    return cells[column] if column < len(cells) else ""


def collect(settings: DemoSettings, jobs: Sequence[Job]) -> dict[str, Any]:
    """Successes and episodes of BC, and of Q-Flow before and after fine-tuning, per task."""
    bc = json.loads(jobs[0].result.read_text())
    results: dict[str, Any] = {"bc": {}, "qflow offline": {}, "qflow fine-tuned": {}}
    for task in settings.tasks:
        found = bc["environments"][address(settings, task)]
        counts = {"successes": int(sum(found["successes"])), "episodes": found["episodes"], "length": found["length"]}
        results["bc"][str(task)] = counts
    for task, job in zip(settings.tasks, jobs[1:], strict=True):
        rows = job.folder.read_evaluations()
        for label, phase in (("qflow offline", "offline"), ("qflow fine-tuned", "online")):
            last = [row for row in rows if row.phase == phase][-1:]
            results[label] |= {str(task): _counts(row) for row in last}
    results["commands"] = [shlex.join(("flowpolicies", *command)) for job in jobs for command in job.commands]
    return results


def _counts(row: EvaluationRow) -> dict[str, float]:
    return {"successes": round(row.success * row.episodes), "episodes": row.episodes, "length": row.length}


def pooled(results: dict[str, Any], label: str) -> Interval:
    """Success over all tasks, with Wilson's interval over all episodes."""
    counts = results[label].values()
    return success_interval(sum(c["successes"] for c in counts), sum(c["episodes"] for c in counts))


def make_table(settings: DemoSettings, results: dict[str, Any]) -> Table:
    """Success in percent with 95 % intervals, and mean episode length."""
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


def _draw(settings: DemoSettings, jobs: Sequence[Job], results: dict[str, Any]) -> None:
    """Q-Flow's curve is the mean over tasks; BC was evaluated once."""
    rows = [row for job in jobs[1:] for row in job.folder.read_evaluations()]
    success, nan = pooled(results, "bc"), float("nan")
    n = sum(c["episodes"] for c in results["bc"].values())
    bc = EvaluationRow("offline", settings.bc_steps, n, *success, nan, nan, nan, nan)
    title = f"{settings.dataset}, mean over {len(settings.tasks)} tasks"
    plot_learning_curves({"Q-Flow": rows, "BC": [bc]}, settings.run_dir / "learning_curve.png", title=title)
