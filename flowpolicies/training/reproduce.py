"""Published tables as lists of training runs: what each runs, what is done, and its numbers beside the paper's."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shlex
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from flowpolicies.algorithms import get_algorithm
from flowpolicies.algorithms.registry import nearest
from flowpolicies.training.evaluations import Phase
from flowpolicies.training.presets import (
    SUITES,
    Preset,
    has_preset,
    load_preset,
    presets_folder,
    settings_of_environment,
    stand_in,
    tasks_of,
)
from flowpolicies.training.runs import RunFolder
from flowpolicies.training.settings import Knobs, TrainSettings


class Cell(NamedTuple):
    """A published number."""

    mean: float
    std: float | None

    def __str__(self) -> str:
        return f"{self.mean:g}" if self.std is None else f"{self.mean:g}±{self.std:g}"


@final
@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A table of a paper; the keys of `flowpolicies/presets/tables.toml`."""

    name: str
    title: str
    rows: Mapping[str, str]
    """The table's name of a row, and its preset without or with a task."""
    columns: Mapping[str, str]
    """The table's name of a column, and its algorithm."""
    seeds: tuple[int, ...]
    phase: Phase
    last: Mapping[str, int]
    """How many of the last evaluations are averaged, by the suite of the run's preset."""
    options: Mapping[str, Any]
    published: Mapping[tuple[str, str], Cell]
    """Numbers by row and column; none if we do not have them."""
    notes: str


@final
@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run of a table."""

    row: str
    column: str
    preset: Preset
    is_published: bool
    """Whether there are hyperparameters of this algorithm for this environment; else they are its defaults."""
    seed: int
    folder: RunFolder
    words: tuple[str, ...]
    """Command line without the program."""

    @property
    def task(self) -> str:
        """Environment and task."""
        return self.preset.name.partition("/")[2]

    @property
    def is_done(self) -> bool:
        """Whether it has gone to its end."""
        return self.folder.model.is_file()

    def __str__(self) -> str:
        source = self.preset.name if self.is_published else f"algorithm defaults in {self.preset.name}"
        state = "done" if self.is_done else "open"
        command = shlex.join(("flowpolicies", *self.words))
        return f"{state}  {self.preset.algorithm}  {self.task}  seed {self.seed}  {source}  {command}"


def load_table(name: str) -> PublishedTable:
    """A published table by name.

    Raises:
        ValueError: for an unknown name.
    """
    tables = _tables()
    if name not in tables:
        raise ValueError(f"unknown table '{name}' (known: {', '.join(tables)}).{nearest(name, tables)}")
    entry = tables[name]
    rows = tables[entry["rows"]]["rows"] if isinstance(entry["rows"], str) else entry["rows"]
    return PublishedTable(
        name=name,
        title=entry["title"],
        rows=rows,
        columns=entry["columns"],
        seeds=tuple(entry["seeds"]),
        phase=entry["phase"],
        last=entry["last"] if isinstance(entry["last"], dict) else dict.fromkeys(SUITES, entry["last"]),
        options=entry.get("options", {}),
        published=_published(entry["published"]) if "published" in entry else {},
        notes=entry["notes"],
    )


def list_tables() -> dict[str, str]:
    """Names and titles."""
    return {name: entry["title"] for name, entry in _tables().items()}


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads((presets_folder() / "tables.toml").read_text())


def _published(file: str) -> dict[tuple[str, str], Cell]:
    lines = (presets_folder() / "published" / file).read_text().splitlines()
    return {
        (row, column): Cell(float(mean), float(std) if std else None)
        for row, column, mean, std in list(csv.reader(lines))[1:]
    }


# ---------------------------------------------------------------------- runs


def plan(
    table: PublishedTable,
    runs_dir: Path,
    *,
    seeds: Collection[int] = (),
    tasks: Collection[str] = (),
    algorithms: Collection[str] = (),
    with_defaults: bool = False,
    extra: Sequence[str] = (),
) -> tuple[list[Run], dict[str, list[str]]]:
    """The runs of a table, seed after seed, so that the table fills evenly; and what is left out.

    Args:
        runs_dir: runs are in a folder of the table's name in it.
        seeds: of the runs; none: the table's.
        tasks: rows, environments or tasks of the table; none: all.
        algorithms: columns or algorithms of the table; none: all.
        with_defaults: also run algorithms without published hyperparameters, with their defaults.
        extra: words at the end of every command line.

    Returns:
        Runs, and algorithm -> the tasks for which no hyperparameters are published, if they are not run.

    Raises:
        ValueError: if the table has no such task or algorithm.
    """
    chosen, left_out = _choose(table, tasks, algorithms, with_defaults)
    runs = []
    for seed in seeds or table.seeds:
        for row, name, column, preset, known in chosen:
            folder = RunFolder(runs_dir / table.name / f"{preset.algorithm}-{name.partition('/')[2]}-seed{seed}")
            words = ["train", preset.algorithm, *(("--preset", name) if known else flags(preset.fields()))]
            words += [*flags(table.options), "--seed", str(seed), "--run-dir", str(folder.path), "--resume", *extra]
            runs.append(
                Run(
                    row=row,
                    column=column,
                    preset=preset,
                    is_published=known,
                    seed=seed,
                    folder=folder,
                    words=tuple(words),
                )
            )
    return runs, left_out


class _Cell(NamedTuple):
    """What a table runs for one of its columns and one of its tasks."""

    row: str
    name: str
    column: str
    preset: Preset
    is_published: bool


def _choose(
    table: PublishedTable, tasks: Collection[str], algorithms: Collection[str], with_defaults: bool
) -> tuple[list[_Cell], dict[str, list[str]]]:
    """See `plan`."""
    names = {column: {column, column.lower(), algorithm} for column, algorithm in table.columns.items()}
    _check_known("algorithm", algorithms, set(table.columns.values()).union(*names.values()), table)
    cells = list(_cells(table))
    _check_known("task", tasks, {name for row, preset, _ in cells for name in _names_of(row, preset)}, table)
    chosen, left_out = list[_Cell](), dict[str, list[str]]()
    for row, name, task in cells:
        for column, algorithm in table.columns.items():
            if tasks and not _names_of(row, name) & set(tasks):
                continue
            if algorithms and not names[column] & set(algorithms):
                continue
            real = stand_in(algorithm, name)
            if has_preset(real, name):
                chosen.append(_Cell(row, name, column, load_preset(real, name), True))
            elif with_defaults:
                chosen.append(_Cell(row, name, column, settings_of_environment(real, name), False))
            else:
                left_out.setdefault(real, []).append(task)
    return chosen, left_out


def without_twins(runs: Iterable[Run]) -> list[Run]:
    """Runs without those that another column has as well."""
    return list({run.folder: run for run in runs}.values())


def _cells(table: PublishedTable) -> Iterator[tuple[str, str, str]]:
    """Row, preset with its task, and the task's name."""
    for row, name in table.rows.items():
        possible = tasks_of(name)
        for full in [name] if not possible else [f"{name}-task{task}" for task in possible]:
            yield row, full, full.partition("/")[2]


def _names_of(row: str, preset: str) -> set[str]:
    """By which a user may mean a task."""
    task = preset.partition("/")[2]
    return {row, preset, task, task.rpartition("-task")[0] or task}


def _check_known(what: str, given: Iterable[str], known: Collection[str], table: PublishedTable) -> None:
    for name in given:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise ValueError(f"table '{table.name}' has no {what} '{name}' (known: {listed}).{nearest(name, known)}")


def flags(values: Mapping[str, Any]) -> list[str]:
    """Values as words of a command line."""
    words: list[str] = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


# ---------------------------------------------------------------------- results


class Score(NamedTuple):
    """What runs of a cell have found so far."""

    mean: float
    """Mean over tasks of the mean over seeds: success in percent, or the return where success is not known."""
    std: float
    """Standard deviation over seeds of the mean over tasks; nan unless there are two seeds with all tasks."""
    runs: int
    """How many runs it is of."""


def score_of(run: Run, table: PublishedTable) -> float:
    """The mean of its last evaluations in the table's phase; nan without any."""
    rows = [row for row in run.folder.read_evaluations() if row.phase == table.phase]
    rows = rows[-table.last[run.preset.suite] :]
    if not rows:
        return math.nan
    return float(np.mean([row.mean_return if math.isnan(row.success) else 100 * row.success for row in rows]))


def collect(table: PublishedTable, runs: Sequence[Run]) -> dict[tuple[str, str], Score]:
    """Scores by row and column, of the runs that are done."""
    cells: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for run in runs:
        if run.is_done and not math.isnan(score := score_of(run, table)):
            cells.setdefault((run.row, run.column), {}).setdefault(run.task, {})[run.seed] = score
    return {key: _summarise(tasks) for key, tasks in cells.items()}


def _summarise(tasks: Mapping[str, Mapping[int, float]]) -> Score:
    mean = float(np.mean([np.mean(list(seeds.values())) for seeds in tasks.values()]))
    complete = set[int].intersection(*(set(seeds) for seeds in tasks.values()))
    means = [float(np.mean([seeds[seed] for seeds in tasks.values()])) for seed in sorted(complete)]
    std = float(np.std(means)) if len(means) > 1 else math.nan
    return Score(mean, std, sum(len(seeds) for seeds in tasks.values()))


MATTERS = {
    *("dataset", "env", "frame_stack", "p_aug", "reward_transform", "rotate_every", "seed"),
    *("steps", "online_steps", "n_envs", "eval_every", "eval_episodes"),
}
"""Fields of `TrainSettings` that make a run what it is; the others are this machine's."""


def deviations(run: Run, table: PublishedTable) -> dict[str, Any]:
    """What a run that is done had otherwise than its preset, its table, and the defaults beside them say."""
    record, preset = run.folder.read_config(), run.preset
    settings = {name: value for name, value in dataclasses.asdict(TrainSettings()).items() if name in MATTERS}
    beside = settings | dataclasses.asdict(Knobs()) | dataclasses.asdict(get_algorithm(preset.algorithm).Config())
    merged = beside | preset.fields() | dict(table.options) | {"seed": run.seed}
    should = json.loads(json.dumps(merged))
    had = {**record["settings"], **record["knobs"], **record["hyperparameters"]}
    # A run of an older version has no record of the fields that have come since.
    return {name: had[name] for name, value in should.items() if name in had and had[name] != value}
