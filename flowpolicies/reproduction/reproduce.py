"""Plans the training runs that a published table consists of."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

from flowpolicies.messages import did_you_mean
from flowpolicies.moved import moved_names
from flowpolicies.reproduction.jobs import flags
from flowpolicies.reproduction.preset_files import Preset
from flowpolicies.reproduction.presets import (
    SHOWN,
    has_preset,
    load_preset,
    settings_of_environment,
    stand_in,
    tasks_of,
)
from flowpolicies.reproduction.published import PublishedTable
from flowpolicies.training.runs import RunFolder


@final
@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training run of a published table."""

    row: str
    """Name of the table's row."""
    column: str
    """Name of the table's column."""
    preset: Preset
    """Settings of the run."""
    is_published: bool
    """Whether hyperparameters of this algorithm in this environment are published; otherwise they are its defaults."""
    seed: int
    """Seed of the run."""
    folder: RunFolder
    """Folder of the run, which need not exist yet."""
    words: tuple[str, ...]
    """Command line of the run without the program's name."""

    @property
    def task(self) -> str:
        """Environment and task, such as "scene-play-task2"."""
        return self.preset.name.partition("/")[2]

    @property
    def is_done(self) -> bool:
        """Whether the run has reached its last step."""
        return self.folder.model.is_file()

    def __str__(self) -> str:
        return self.describe("done" if self.is_done else "open")

    def describe(self, state: str) -> str:
        """One line with state, algorithm, task, seed, preset and command."""
        source = self.preset.name if self.is_published else f"algorithm defaults in {self.preset.name}"
        command = shlex.join(("flowpolicies", *self.words))
        return f"{state}  {self.preset.algorithm}  {self.task}  seed {self.seed}  {source}  {command}"


def plan(
    table: PublishedTable,
    runs_dir: Path,
    *,
    seeds: Collection[int] = (),
    tasks: Collection[str] = (),
    algorithms: Collection[str] = (),
    with_defaults: bool = False,
    extra: Sequence[str] = (),
) -> tuple[list[PlannedRun], dict[str, list[str]]]:
    """Plans the runs of a table; all runs of one seed come before those of the next, so that the table fills evenly.

    Args:
        runs_dir: folder in which the runs are in a folder of the table's name.
        seeds: seeds of the runs; empty: those of the table.
        tasks: rows, environments or tasks of the table; empty: all.
        algorithms: columns or algorithms of the table; empty: all.
        with_defaults: also run algorithms without published hyperparameters, with their defaults.
        extra: words at the end of every command line.

    Returns:
        The runs, and algorithm -> tasks that are left out because no hyperparameters are published for them.

    Raises:
        ValueError: if the table has no such task or algorithm.
    """
    chosen, left_out = _choose(table, tasks, algorithms, with_defaults)
    runs = [
        _make_run(table, choice, seed, runs_dir / table.name, extra)
        for seed in seeds or table.seeds
        for choice in chosen
    ]
    return runs, left_out


class _Choice(NamedTuple):
    """What a table runs with every seed for one of its columns and one task; the fields are those of `PlannedRun`."""

    row: str
    column: str
    preset: Preset
    is_published: bool


def _make_run(table: PublishedTable, choice: _Choice, seed: int, parent: Path, extra: Sequence[str]) -> PlannedRun:
    preset = choice.preset
    settings = ("--preset", preset.name) if choice.is_published else flags(preset.fields())
    folder = RunFolder(parent / f"{preset.algorithm}-{preset.name.partition('/')[2]}-seed{seed}")
    own = flags({**table.options, "seed": seed, "run_dir": folder.path, "resume": True})
    words = ("train", preset.algorithm, *settings, *own, *extra)
    return PlannedRun(**choice._asdict(), seed=seed, folder=folder, words=words)


def _choose(
    table: PublishedTable, tasks: Collection[str], algorithms: Collection[str], with_defaults: bool
) -> tuple[list[_Choice], dict[str, list[str]]]:
    """Presets that a table runs, and algorithm -> tasks without published hyperparameters; see `plan`."""
    names = {column: {column, column.lower(), algorithm} for column, algorithm in table.columns.items()}
    _check_known("algorithm", algorithms, set(table.columns.values()).union(*names.values()), table)
    possible = list(_tasks(table))
    _check_known("task", tasks, set().union(*(_names_of(row, name) for row, name in possible)), table)
    chosen, left_out = list[_Choice](), dict[str, list[str]]()
    for row, name in possible:
        for column, algorithm in table.columns.items():
            if tasks and not _names_of(row, name) & set(tasks):
                continue
            if algorithms and not names[column] & set(algorithms):
                continue
            real = stand_in(algorithm, name)
            if has_preset(real, name):
                chosen.append(_Choice(row, column, load_preset(real, name), True))
            elif with_defaults:
                chosen.append(_Choice(row, column, settings_of_environment(real, name), False))
            else:
                left_out.setdefault(real, []).append(name.partition("/")[2])
    return chosen, left_out


def without_twins(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """The runs, each once; two columns of a table may share their runs."""
    return list({run.folder: run for run in runs}.values())


def _tasks(table: PublishedTable) -> Iterator[tuple[str, str]]:
    """Pairs of a row and the name of a preset with its task."""
    for row, name in table.rows.items():
        for full in [f"{name}-task{task}" for task in tasks_of(name)] or [name]:
            yield row, full


def _names_of(row: str, preset: str) -> set[str]:
    """Names by which a user may select a task."""
    task = preset.partition("/")[2]
    return {row, preset, task, task.rpartition("-task")[0] or task}


def _check_known(what: str, given: Iterable[str], known: Collection[str], table: PublishedTable) -> None:
    """Raises a ValueError for a name that the table does not have."""
    for name in given:
        if name not in known:
            names = sorted(known)
            more = f" and {len(names) - SHOWN} more; --dry-run prints the runs" if len(names) > SHOWN else ""
            raise ValueError(
                f"table '{table.name}' has no {what} '{name}'.{did_you_mean(name, known)} "
                f"It has {', '.join(names[:SHOWN])}{more}."
            )


__getattr__ = moved_names(__name__, {"Run": "flowpolicies.reproduction.reproduce:PlannedRun"})
