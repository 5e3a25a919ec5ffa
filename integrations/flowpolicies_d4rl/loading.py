"""D4RL's original files as transitions."""

from __future__ import annotations

import os
from pathlib import Path

import h5py

from flowpolicies.data import TransitionDataset
from flowpolicies.data.dataset.transforms import REFERENCE
from flowpolicies.data.downloads.download import download as fetch
from flowpolicies.data.formats.hdf5 import load_hdf5
from flowpolicies.data.formats.memmap import Storage, from_shards
from flowpolicies_d4rl.names import Task, find_task

SERVER = "https://rail.eecs.berkeley.edu/datasets/offline_rl"
DATA_DIR_VARIABLE = "D4RL_DATASET_DIR"
DATA_DIR = Path("~/.d4rl/datasets")
"""Where D4RL itself keeps its files, unless the environment variable says otherwise."""


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    clip_actions: bool = True,
    compact: bool = False,
    storage: Storage | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    full_check: bool = False,
) -> TransitionDataset:
    """The transitions of a D4RL dataset: the rows of its `qlearning_dataset`, with rewards as D4RL has them.

    In mazes the goal sets the mask to 0, and the trajectory goes on. Reward conventions are separate:
    `RewardTransform`, `--reward-transform`.

    Args:
        name: such as "antmaze-large-play-v2", "pen-human-v1", "hopper-medium-v2".
        data_dir: folder of the files; None: D4RL's own (D4RL_DATASET_DIR, or ~/.d4rl/datasets).
        clip_actions: clip actions to a little inside [-1, 1], as most papers do.
        compact: store each state once, see `flowpolicies.data.dataset.compact`.
        storage: "ram", or "memmap" for files that are laid out once and opened afterwards; None: "ram".
        cache_dir: where the latter go; None: `flowpolicies.data.formats.memmap.CACHE_DIR`.
        download: fetch a missing file from D4RL's server.
        full_check: read the whole file to compare it with its SHA-256; otherwise only if its size or time changed.

    Raises:
        ValueError: if there is no such dataset, or its file is damaged.
        FileNotFoundError: if the file is missing, and `download` is off or the environment says offline.
        ConnectionError: if it cannot be downloaded.
    """
    task = find_task(name)
    folder = Path(data_dir or os.environ.get(DATA_DIR_VARIABLE) or DATA_DIR)
    path = fetch(
        f"{SERVER}/{task.file}",
        folder / Path(task.file).name,
        check=_check,
        full=full_check,
        offline=None if download else True,
    )

    def read(file: Path) -> TransitionDataset:
        dataset = _read(task, file, clip_actions=clip_actions)
        return dataset.compact() if compact else dataset

    identity = {"name": name, "source": "d4rl", "clip_actions": clip_actions, "compact": compact}
    return from_shards(identity, [path], read, storage or "ram", cache_dir)


def _read(task: Task, path: Path, *, clip_actions: bool) -> TransitionDataset:
    with h5py.File(path, "r") as file:
        steps = None if "timeouts" in file else task.max_episode_steps
    return load_hdf5(
        path,
        next_observations="shifted",
        terminals="inside" if task.family == "antmaze" else "ends",
        max_episode_steps=steps,
        clip_actions=clip_actions,
        name=task.name,
        provenance={"source": "d4rl", REFERENCE: {"min": task.random, "max": task.expert}},
    )


def _check(path: Path) -> None:
    """Raises a ValueError unless it is an HDF5 file with the arrays that every dataset has."""
    if not h5py.is_hdf5(path):
        raise ValueError("it is not an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            missing = {"observations", "actions", "rewards", "terminals"} - set(file)
    except OSError as error:
        raise ValueError(f"it is damaged, or only a part of a file: {error}") from error
    if missing:
        raise ValueError(f"it lacks {sorted(missing)}")
