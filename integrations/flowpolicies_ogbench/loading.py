"""OGBench's datasets as transitions with the rewards of one task."""

import json
import os
import zipfile
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ogbench
from ogbench.relabel_utils import relabel_dataset
from ogbench.utils import DATASET_URL, DEFAULT_DATASET_DIR

from flowpolicies.data import TransitionDataset
from flowpolicies.data.download import download
from flowpolicies.data.files import read_record
from flowpolicies_ogbench.environment import OGBenchEnv, make_env, sparse_rewards
from flowpolicies_ogbench.hashes import SHA256
from flowpolicies_ogbench.names import TaskName, parse_name
from flowpolicies_ogbench.randomness import global_draws_from

PUBLISHED_DATA_DIR = Path(DEFAULT_DATASET_DIR)
"""Where OGBench keeps the files that it downloads."""

GENERATED_DATA_DIR = Path("~/.cache/flowpolicies/ogbench")
"""Where `generate` writes, so that local data is never mistaken for the published files."""

ACTION_LIMIT = 1 - 1e-5
"""Actions are clipped to this on loading, as in the papers: policies that squash could never reach the bounds."""


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    split: Literal["train", "val"] = "train",
    sparse: bool = False,
    download: bool = True,
    full_check: bool = False,
) -> TransitionDataset:
    """The transitions of a single-task dataset.

    Rewards and masks judge the state before the step, as in OGBench: a mask of 0 stands where that state is a success,
    which can be inside a trajectory.

    Args:
        name: such as "cube-single-play-singletask-task1-v0"; without "-task1" it is the scene's default task.
        data_dir: folder of the data files; None: `PUBLISHED_DATA_DIR`.
        split: "train" or "val".
        sparse: rewards are -1 until the whole task is done, rather than minus the number of its open parts.
        download: fetch a missing file from OGBench's server.
        full_check: read the whole file to compare it with its SHA-256; otherwise only if its size or time changed.

    Raises:
        ValueError: if there is no such dataset, or its file is damaged.
        FileNotFoundError: if the file is missing, and `download` is off or the environment says offline.
        ConnectionError: if it cannot be downloaded.
    """
    if split not in ("train", "val"):
        raise ValueError(f"unknown split '{split}' of '{name}' (known: train, val).")
    task = parse_name(name)
    path = _find_file(
        name, task, Path(data_dir or PUBLISHED_DATA_DIR), split, offline=not download, full_check=full_check
    )
    env = make_env(name, seed=0)
    arrays = _read(path, task, env)
    dataset = TransitionDataset.from_arrays(
        arrays["observations"],
        np.clip(arrays["actions"], -ACTION_LIMIT, ACTION_LIMIT),
        sparse_rewards(arrays["rewards"]) if sparse else arrays["rewards"],
        arrays["next_observations"],
        masks=arrays["masks"],
        terminals=arrays["terminals"],
        observation_space=env.observation_space,
        action_space=env.action_space,
        name=name,
        provenance=_provenance(path, task, split, sparse),
    )
    env.close()
    return dataset


def data_file(task: TaskName, data_dir: Path, split: str) -> Path:
    """Path of a data file, named as OGBench names it."""
    return data_dir.expanduser() / f"{task.dataset}{'-val' if split == 'val' else ''}.npz"


def record_file(task: TaskName, data_dir: Path) -> Path:
    """Path of the file in which `generate` says how it made the data beside it."""
    return data_dir.expanduser() / f"{task.dataset}.json"


def _find_file(name: str, task: TaskName, data_dir: Path, split: str, *, offline: bool, full_check: bool) -> Path:
    path = data_file(task, data_dir, split)
    if path.is_file() and record_file(task, data_dir).is_file():
        return path  # Generated on this machine: there is nothing to compare it with.
    if data_file(task, GENERATED_DATA_DIR, split).is_file():
        advice = f"A generated file is there: pass data_dir='{GENERATED_DATA_DIR}'."
    else:
        advice = f"Or run `flowpolicies data generate ogbench:{name}` and pass data_dir='{GENERATED_DATA_DIR}'."
    url = f"{DATASET_URL}/{path.name}"
    try:
        return download(url, path, sha256=SHA256.get(path.name), check=_check, full=full_check, offline=offline or None)
    except (ConnectionError, FileNotFoundError) as error:
        raise type(error)(f"{error} {advice}") from error


def _check(path: Path) -> None:
    """Raises a ValueError unless the file is a whole archive of the arrays that every OGBench file has."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an .npz file, or only a part of one")
    with zipfile.ZipFile(path) as file:
        missing = {"observations.npy", "actions.npy", "terminals.npy"} - set(file.namelist())
        if missing:
            raise ValueError(f"it lacks {sorted(missing)}")
        try:
            damaged = file.testzip()
        except zlib.error as error:
            raise ValueError(f"it is damaged: {error}") from error
        if damaged is not None:
            raise ValueError(f"its {damaged} is damaged")


def _read(path: Path, task: TaskName, env: OGBenchEnv) -> dict[str, Any]:
    """OGBench's own reading and relabelling by the goal of `env`, which it resets."""
    try:
        arrays: dict[str, Any] = ogbench.load_dataset(str(path), ob_dtype=env.observation_space.dtype, add_info=True)
        with global_draws_from(np.random.RandomState(0)):
            relabel_dataset(task.environment, env.env, arrays)
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"cannot read '{path}' as OGBench data: {error}. "
            "If another program made the file, remove it and load again."
        ) from error
    return arrays


def _provenance(path: Path, task: TaskName, split: str, sparse: bool) -> dict[str, Any]:
    provenance: dict[str, Any] = {
        "source": "ogbench",
        "ogbench": version("ogbench"),
        "file": path.name,
        "split": split,
        "reward_timing": "state before the step",
        "sparse": sparse,
        "action_limit": ACTION_LIMIT,
    }
    record, downloaded = record_file(task, path.parent), read_record(path)
    if record.is_file():
        return {**provenance, "generated": json.loads(record.read_text())}
    return provenance if downloaded is None else {**provenance, "sha256": downloaded.sha256}
