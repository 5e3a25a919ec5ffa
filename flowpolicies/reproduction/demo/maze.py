"""The maze of the demo: its walls, data without some of its cells, and paths of policies in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowpolicies.data import TransitionDataset, load_dataset, make_env, read_npz, write_npz
from flowpolicies.training.collect import collect
from flowpolicies.training.loading import load_policy

Cell = tuple[int, int]
"""Row and column of a cell of the maze, counted from 0."""


class Maze(NamedTuple):
    """A maze of OGBench with one of its tasks."""

    walls: np.ndarray
    """Whether each cell is a wall, `[rows, columns]`."""
    origin: np.ndarray
    """Coordinates of the centre of the cell (0, 0), `[2]`."""
    unit: float
    """Side of a cell."""
    start: np.ndarray
    """Coordinates of the centre of the cell in which the task starts, `[2]`."""
    goal: np.ndarray
    """Coordinates of the goal, `[2]`."""

    def cells(self, xy: np.ndarray) -> np.ndarray:
        """Row and column `[N, 2]` of the cells of positions `[N, 2]`."""
        cells: np.ndarray = np.rint((xy - self.origin) / self.unit).astype(int)[:, ::-1]
        return cells


def read_maze(address: str, task: int) -> Maze:
    """The maze of an environment.

    Raises:
        ValueError: if the environment is not a maze.
    """
    with closing(make_env(address)) as env:
        inner: Any = getattr(env, "env", env).unwrapped
        if not hasattr(inner, "maze_map"):
            raise ValueError(f"'{address}' is not a maze, so the demo cannot draw it. Pass --dataset pointmaze-...")
        info = inner.task_infos[task - 1]
        origin, beside = (np.asarray(inner.ij_to_xy(cell), float) for cell in ((0, 0), (0, 1)))
        start, goal = (np.asarray(info[name], float) for name in ("init_xy", "goal_xy"))
        return Maze(inner.maze_map == 1, origin, float(beside[0] - origin[0]), start, goal)


def parse_cell(text: str) -> Cell:
    """The cell that "6-5" stands for.

    Raises:
        ValueError: for other text.
    """
    if (match := re.fullmatch(r"(\d+)-(\d+)", text)) is None:
        raise ValueError(f"a cell of the maze is ROW-COLUMN, such as 6-5, got {text!r}")
    return int(match[1]), int(match[2])


def check_maze(maze: Maze, cells: Sequence[str]) -> None:
    """Checks that cells which are to be left out of the data are free, and that the start is in one of them.

    Raises:
        ValueError: otherwise.
    """
    parsed, free = list(map(parse_cell, cells)), list(map(tuple, np.argwhere(~maze.walls).tolist()))
    if wrong := [text for text, cell in zip(cells, parsed, strict=True) if cell not in free]:
        choice = ", ".join(f"{i}-{j}" for i, j in free)
        raise ValueError(f"the cell {wrong[0]} is a wall or outside of the maze; free cells: {choice}")
    start = tuple(maze.cells(maze.start[None])[0].tolist())
    if cells and start not in parsed:
        raise ValueError(
            f"the task starts in the cell {start[0]}-{start[1]}, which is not among those that are left out of the "
            f"data ({', '.join(cells)}). Pass --unseen {start[0]}-{start[1]}, or another --unseen-task."
        )


def without_cells(dataset: TransitionDataset, maze: Maze, cells: Sequence[Cell]) -> TransitionDataset:
    """The transitions that neither begin nor end in one of the cells; an episode that enters one is cut there.

    Raises:
        ValueError: if nothing is left.
    """
    left_out = np.zeros(maze.walls.shape, bool)
    left_out[tuple(np.array(cells).T)] = True
    inside = np.zeros(len(dataset), bool)
    for positions in (dataset.observations, dataset.next_observations):
        inside |= left_out[tuple(maze.cells(np.asarray(positions)[:, :2]).T)]
    if inside.all():
        raise ValueError(f"all {len(dataset):,} transitions begin or end in the cells {', '.join(map(str, cells))}")
    ends = np.asarray(dataset.terminals).astype(bool)
    ends[:-1] |= inside[1:]
    columns_kept = {
        name: np.asarray(getattr(dataset, name))[~inside]
        for name in ("observations", "actions", "rewards", "next_observations", "masks")
    }
    return TransitionDataset.from_arrays(
        **columns_kept,
        terminals=ends[~inside],
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        name=f"{dataset.name} without {len(cells)} cells",
        provenance={**dataset.provenance, "without_cells": [f"{i}-{j}" for i, j in cells]},
    )


def write_unseen_data(address: str, task: int, cells: Sequence[str], data_dir: Path) -> Path:
    """Writes the data of a task without some cells into the folder of the data, unless it is there."""
    path = data_dir / f"task{task}-without-{'-'.join(cells)}.npz"
    if not path.is_file():
        whole = load_dataset(address, data_dir=data_dir)
        without_cells(whole, read_maze(address, task), [parse_cell(cell) for cell in cells]).save(path)
    return path


def roll_out(policy: Path, address: str, episodes: int, seed: int) -> list[np.ndarray]:
    """Positions `[T, 2]` of a policy in some episodes of an environment."""
    found, _ = collect(load_policy(policy), address, episodes, seed=seed)
    return episode_paths(found)


def episode_paths(dataset: TransitionDataset, first: int | None = None) -> list[np.ndarray]:
    """Positions `[T, 2]` in the first episodes of a dataset, or in all of them."""
    ends = np.flatnonzero(np.asarray(dataset.terminals))[:first] + 1
    pieces = np.split(np.asarray(dataset.next_observations)[: ends[-1], :2], ends[:-1])
    starts = np.asarray(dataset.observations)[np.r_[0, ends[:-1]], :2]
    return [np.concatenate([start[None], piece]) for start, piece in zip(starts, pieces, strict=True)]


def save_paths(path: Path, groups: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Writes groups of paths to an npz file."""
    write_npz(path, {f"{name}/{i}": one for name, paths in groups.items() for i, one in enumerate(paths)})


def load_paths(path: Path) -> dict[str, list[np.ndarray]]:
    """Reads what `save_paths` wrote."""
    groups: dict[str, list[np.ndarray]] = {}
    for key, one in read_npz(path).items():
        groups.setdefault(key.rpartition("/")[0], []).append(one)
    return groups
