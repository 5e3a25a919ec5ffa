"""Loading of D4RL's original files."""

from __future__ import annotations

import os
from pathlib import Path

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data import TransitionDataset
from flowpolicies.data.dataset.transforms import REFERENCE
from flowpolicies.data.downloads.download import download as fetch
from flowpolicies.data.formats.hdf5 import load_hdf5
from flowpolicies.data.formats.memmap import Storage, from_shards
from flowpolicies.data.reading.hdf5 import open_hdf5
from flowpolicies.data.reading.limits import check_max_bytes
from flowpolicies_d4rl.names import Task, find_task

SERVER = "https://rail.eecs.berkeley.edu/datasets/offline_rl"
"""Address of the folder on D4RL's server that has the files."""

DATA_DIR_VARIABLE = "D4RL_DATASET_DIR"
"""Environment variable with which D4RL chooses the folder of its files (d4rl/offline_env.py)."""

DATA_DIR = Path("~/.d4rl/datasets")
"""Folder of D4RL's files if the environment variable is not set."""


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
    max_bytes: int | None = None,
) -> TransitionDataset:
    """Load the transitions of a D4RL dataset: the rows of its `qlearning_dataset`, with the stored rewards.

    In mazes the mask is 0 where the goal is reached, and the trajectory continues. To change the rewards as papers do,
    use `RewardTransform` (`--reward-transform`).

    Args:
        name: Name of the dataset, such as "antmaze-large-play-v2", "pen-human-v1" or "hopper-medium-v2".
        data_dir: Folder of the files; None: D4RL's own (D4RL_DATASET_DIR, or ~/.d4rl/datasets).
        clip_actions: Clip actions to slightly inside [-1, 1], as most papers do.
        compact: Store each state once, which halves the memory; batches are the same.
        storage: "ram", or "memmap" for files that are written once and opened afterwards; None: "ram".
        cache_dir: Folder of the memory-mapped files; None: ~/.cache/flowpolicies/memmap.
        download: Download a missing file from D4RL's server.
        full_check: Read the whole file to compare it with its SHA-256; otherwise it is read only if its size or its
            time of modification changed.
        max_bytes: Bytes that the arrays of the file may take in memory; None: the larger of 256 MiB and 100 times the
            size of the file.

    Raises:
        ArtifactError: if the file is damaged, or its data are faulty.
        ValueError: if the dataset does not exist, or an option has a wrong value.
        FileNotFoundError: if the file is missing, and downloads are turned off by `download` or by the environment
            variable FLOWPOLICIES_OFFLINE.
        ConnectionError: if the file cannot be downloaded.
    """
    check_max_bytes(max_bytes)
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
        return _read(task, file, clip_actions=clip_actions, compact=compact, max_bytes=max_bytes)

    identity = {"name": name, "source": "d4rl", "clip_actions": clip_actions, "compact": compact}
    return from_shards(identity, [path], read, storage or "ram", cache_dir)


def _read(task: Task, path: Path, *, clip_actions: bool, compact: bool, max_bytes: int | None) -> TransitionDataset:
    # As in `qlearning_dataset` (d4rl/__init__.py): files without "timeouts" are cut at the environment's time limit,
    # and the last step of a cut episode is dropped, because its next observation is not known.
    with open_hdf5(path) as file:
        steps = None if "timeouts" in file else task.max_episode_steps
    return load_hdf5(
        path,
        next_observations="shifted",
        terminals="inside" if task.family == "antmaze" else "ends",
        max_episode_steps=steps,
        clip_actions=clip_actions,
        name=task.name,
        max_bytes=max_bytes,
        compact=compact,
        provenance={"source": "d4rl", REFERENCE: {"min": task.random, "max": task.expert}},
    )


def _check(path: Path) -> None:
    """Check that a file is an HDF5 file with the arrays that every D4RL dataset has.

    Raises:
        ValueError: if it is not; the message is a clause about the file, for a longer message.
    """
    try:
        with open_hdf5(path) as file:
            missing = {"observations", "actions", "rewards", "terminals"} - set(file.names())
    except ArtifactError as error:
        is_other = error.problem.startswith("it is")
        raise ValueError(
            error.problem if is_other else f"it is damaged, or only a part of a file: {error.problem}"
        ) from error
    if missing:
        raise ValueError(f"it lacks {sorted(missing)}")
