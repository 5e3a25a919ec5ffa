"""Published numbers to put beside one's own: those of the rows whose tasks the runs have."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from flowpolicies.comparison.scores import ScoreTable
from flowpolicies.reproduction.preset_files import Preset, split_task
from flowpolicies.reproduction.published import PublishedScore, list_tables, load_table
from flowpolicies.reproduction.reproduce import plan


class PublishedBeside(NamedTuple):
    """A published number of an algorithm, and the environments of one's own runs that it is about."""

    table: str
    """Name of the table."""
    row: str
    """Name of the row."""
    column: str
    """Name of the column."""
    score: PublishedScore
    """Published mean over seeds, with its deviation."""
    environments: tuple[str, ...]
    """Environments of one's own runs that are tasks of the row."""
    tasks: int
    """Number of tasks that the published number is the mean of."""


def published_of(comparison: ScoreTable) -> Iterator[tuple[str, PublishedBeside]]:
    """Each label of a comparison with the published numbers of its algorithms on its tasks."""
    for label, each in comparison.table.items():
        algorithms = {one.algorithm for one in comparison.runs if one.label == label}
        for algorithm in sorted(str(name) for name in algorithms - {None}):
            for one in published_beside(algorithm, list(each)):
                yield label, one


def published_beside(algorithm: str, environments: Collection[str]) -> Iterator[PublishedBeside]:
    """Published numbers of an algorithm on tasks that some environments are.

    Args:
        algorithm: name of the algorithm.
        environments: addresses of environments, such as "ogbench:cube-single-play-singletask-task2-v0".
    """
    for name in list_tables():
        table = load_table(name)
        if not table.published or algorithm not in table.columns.values():
            continue
        cells: dict[tuple[str, str], list[Preset]] = {}
        for run in plan(table, Path(), seeds=[0], algorithms=[algorithm], with_defaults=True)[0]:
            cells.setdefault((run.row, run.column), []).append(run.preset)
        for (row, column), presets in cells.items():
            own = tuple(one for one in environments if any(_is_of(one, preset) for preset in presets))
            if own and (row, column) in table.published:
                yield PublishedBeside(name, row, column, table.published[row, column], own, len(presets))


def _is_of(environment: str, preset: Preset) -> bool:
    """Whether an environment is that of a preset. A name without a task stands for the default task."""
    (key, task), (own, _) = split_task(environment), split_task(preset.dataset)
    return key == own and (task or preset.default_task) == preset.task
