"""The runs of the demo: their commands, and how much of their work is done."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from flowpolicies.reproduction.demo.settings import DemoSettings
from flowpolicies.reproduction.jobs import Job, flags
from flowpolicies.training.runs import RunFolder

LOG_EVERY = 100
"""Number of gradient steps between two rows of the log, from which the progress bar is fed."""


class DemoRun(NamedTuple):
    """A training run of the demo, and the evaluations that follow it."""

    folder: RunFolder
    commands: tuple[tuple[str, ...], ...]
    """Command lines, run one after another, each without the program's name; the first one trains."""
    work: Mapping[str, int]
    """Number of units of each kind of work in all commands; see `work_done` for the kinds."""
    result: Path
    """File that exists when all commands are done."""
    reports: Mapping[Path, int] = {}
    """Files that the commands after the first one write in this order, and the number of episodes in each."""

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.folder.path.name

    @property
    def job(self) -> Job:
        """What is left of the commands, as a job whose output goes to a file beside the folder."""
        reports = list(self.reports)
        left = [command for command, path in zip(self.commands[1:], reports, strict=False) if not path.is_file()]
        left += self.commands[1 + len(reports) :]
        is_trained = len(left) < len(self.commands) - 1
        return Job(self.name, (*(() if is_trained else self.commands[:1]), *left), self.folder.path.with_suffix(".log"))


def address(settings: DemoSettings, task: int) -> str:
    """Address of the dataset and the environment of a task."""
    return f"ogbench:{settings.dataset}-singletask-task{task}-v0"


def folder_of(settings: DemoSettings, task: int | Literal["unseen"]) -> RunFolder:
    """Folder of Q-Flow's run for a task, or of the one from data without its start."""
    name = f"qflow-task{settings.unseen_task}-unseen" if task == "unseen" else f"qflow-task{task}"
    return RunFolder(settings.run_dir / name)


def make_runs(settings: DemoSettings, data_dir: Path, unseen_data: Path | None) -> list[DemoRun]:
    """All runs, the longest one first: Q-Flow from an unseen start, Q-Flow for each task, and BC.

    Args:
        data_dir: folder of the generated data.
        unseen_data: file of the data without the start of a task; None: without that run.
    """
    runs = [] if unseen_data is None else [_unseen_run(settings, unseen_data)]
    for task in settings.tasks:
        data = {"dataset": address(settings, task), "data_dir": data_dir}
        runs.append(_qflow_run(settings, folder_of(settings, task), data, settings.online_steps))
    return [*runs, _bc_run(settings, data_dir)]


def _unseen_run(settings: DemoSettings, data: Path) -> DemoRun:
    """Q-Flow on data without the start of a task; an episode in them may be shorter than an action chunk."""
    env = address(settings, settings.unseen_task)
    values = {"dataset": f"npz:{data}", "env": env, "min_length": settings.horizon}
    return _qflow_run(settings, folder_of(settings, "unseen"), values, settings.unseen_online_steps)


def _qflow_run(settings: DemoSettings, folder: RunFolder, data: Mapping[str, Any], online_steps: int) -> DemoRun:
    values = {**data, "online_steps": online_steps, "eval_episodes": settings.eval_episodes}
    command = _train(settings, "qflow", folder, {**values, **settings.hyperparameters("qflow")})
    evaluations = sum(-(-steps // settings.eval_every) for steps in (settings.steps, online_steps))
    work = {
        "start": 1,
        "qflow update": settings.steps,
        "qflow episode": evaluations * settings.eval_episodes,
        "online step": online_steps,
    }
    return DemoRun(folder, (command,), work, folder.model)


def _bc_run(settings: DemoSettings, data_dir: Path) -> DemoRun:
    """BC, whose one policy is evaluated in all tasks: a few episodes of its checkpoints, and more of the last one."""
    folder = RunFolder(settings.run_dir / "bc")
    data = {"dataset": address(settings, settings.tasks[0]), "data_dir": data_dir, "eval_episodes": 0}
    commands = [_train(settings, "bc", folder, {**data, **settings.hyperparameters("bc")})]
    reports = {}
    for step in steps_of_evaluations(settings):
        episodes = settings.eval_episodes if step == settings.steps else max(1, settings.eval_episodes // 4)
        report, n = bc_report(settings, step), episodes * len(settings.tasks)
        envs = [address(settings, task) for task in settings.tasks]
        words = ("evaluate", str(checkpoint(folder, step)), "--env", *envs)
        values = {"episodes": episodes, "seed": settings.seed, **_eval_workers(settings), "json": report}
        commands.append((*words, *flags(values)))
        reports[report] = n
    work = {"start": len(commands), "bc update": settings.steps, "bc episode": sum(reports.values())}
    return DemoRun(folder, tuple(commands), work, bc_report(settings, settings.steps), reports)


def steps_of_evaluations(settings: DemoSettings) -> list[int]:
    """Numbers of gradient steps after which the policies are evaluated."""
    return [*range(settings.eval_every, settings.steps, settings.eval_every), settings.steps]


def bc_report(settings: DemoSettings, step: int) -> Path:
    """File with the evaluation of BC after a number of gradient steps."""
    return settings.run_dir / "bc" / f"tasks-{step}.json"


def checkpoint(folder: RunFolder, step: int) -> Path:
    """The checkpoint after a number of offline gradient steps."""
    return folder.checkpoints / f"step_{step:09d}.zip"


def _eval_workers(settings: DemoSettings) -> dict[str, int]:
    """Cores that the runs leave free step the environments of evaluations; on two cores there are none."""
    share = (os.cpu_count() or 1) // settings.workers
    return {"eval_workers": share} if share > 1 else {}


def _train(settings: DemoSettings, algorithm: str, folder: RunFolder, values: Mapping[str, Any]) -> tuple[str, ...]:
    common = {
        "run_dir": folder.path,
        "resume": True,
        "steps": settings.steps,
        "seed": settings.seed,
        "log_every": LOG_EVERY,
        "eval_every": settings.eval_every,
        "checkpoint_every": settings.eval_every,
        **_eval_workers(settings),
        "keep_checkpoints": 1000,  # The pictures show the policy before and after fine-tuning.
    }
    compiled = ("--compile", str(settings.compile))
    return ("train", algorithm, *flags({**values, **common}), *compiled)


def work_done(run: DemoRun) -> dict[str, int]:
    """Units of each kind of work that a run has done, by the files that it has written.

    The kinds are the start of a command ("start"), a gradient step and an episode of an evaluation, each with the name
    of the algorithm, and an environment step of fine-tuning with its update ("online step").
    """
    reports = [path for path in run.reports if path.is_file()]
    offline = max(_numbers(run.folder.progress, "time/offline_steps"), default=0)
    done = {
        "start": int(offline > 0) + len(reports),
        "update": offline,
        "episode": sum(_numbers(run.folder.evaluations, "episodes")) + sum(run.reports[path] for path in reports),
        "step": max(_numbers(run.folder.progress, "time/total_timesteps"), default=0),
    }
    return {kind: min(done[kind.split()[-1]], total) for kind, total in run.work.items()}


def _numbers(path: Path, column: str) -> list[int]:
    """The whole numbers in a column of a file of CSV, which may be missing, or have an unfinished last row."""
    try:
        header, *rows = path.read_text().rpartition("\n")[0].splitlines()
        place = header.split(",").index(column)
    except (FileNotFoundError, ValueError):
        return []
    cells = [row.split(",") for row in rows]
    return [int(row[place]) for row in cells if place < len(row) and row[place].isdigit()]
