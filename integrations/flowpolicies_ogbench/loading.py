"""OGBench's datasets as transitions: of one task, or with goals, from one file or from many."""

import functools
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

from ogbench.utils import DATASET_URL

from flowpolicies.data import TransitionDataset
from flowpolicies.data.downloads.download import download
from flowpolicies.data.downloads.files import read_record
from flowpolicies.data.formats.memmap import Storage, from_shards
from flowpolicies.spaces.layout import ACTION_MARGIN
from flowpolicies_ogbench import finding
from flowpolicies_ogbench.finding import data_file, files_in, is_generated, record_file
from flowpolicies_ogbench.generation import can_generate
from flowpolicies_ogbench.hashes import SHA256
from flowpolicies_ogbench.names import TaskName, parse_name
from flowpolicies_ogbench.reading import Reader
from flowpolicies_ogbench.versions import ogbench_version, reward_timing

PUBLISHED_DATA_DIR = finding.PUBLISHED_DATA_DIR
GENERATED_DATA_DIR = finding.GENERATED_DATA_DIR


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    split: Literal["train", "val"] = "train",
    sparse: bool = False,
    compact: bool = False,
    storage: Storage | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    full_check: bool = False,
) -> TransitionDataset:
    """The transitions of a dataset.

    Single-task names: rewards and masks judge the state before the step, as in OGBench: a mask of 0 stands where that
    state is a success, which can be inside a trajectory.

    Names without "singletask" have goals. `desired_goal` is the state of the last row of the trajectory (with
    "oraclerep": OGBench's short description of it, and `achieved_goal` that of the present state), and the reward -1
    but for that row. `TransitionBuffer` draws other goals, see `flowpolicies.data.HindsightGoals`.

    Data comes from the published files; if they are not there, from those that `generate` made on this machine (with a
    warning, and `provenance["generated"]`); else it is downloaded. Images have their channels first.

    Args:
        name: such as "cube-single-play-singletask-task1-v0"; without "-task1" it is the scene's default task;
            "cube-single-play-v0" and "cube-single-play-oraclerep-v0" have goals; "puzzle-4x4-play-100m-singletask-v0"
            is a large set, for which `data_dir` has a folder of many files.
        data_dir: folder of the data files; None: `PUBLISHED_DATA_DIR`, or `GENERATED_DATA_DIR` as said above.
        split: "train" or "val".
        sparse: rewards are -1 until the whole task is done, rather than minus the number of its open parts.
        compact: store each state once, as in OGBench's own compact form: half the memory, the same batches.
        storage: "ram", or "memmap" for files that are laid out once and opened afterwards; None: "memmap" for data in
            several files, else "ram".
        cache_dir: where the latter go; None: `flowpolicies.data.formats.memmap.CACHE_DIR`.
        download: fetch a missing file from OGBench's server; large sets never are.
        full_check: read the whole file to compare it with its SHA-256; otherwise only if its size or time changed.

    Raises:
        ValueError: if there is no such dataset, or its file is damaged.
        FileNotFoundError: if the file is missing, and `download` is off or the environment says offline.
        ConnectionError: if it cannot be downloaded.
    """
    if split not in ("train", "val"):
        raise ValueError(f"unknown split '{split}' of '{name}' (known: train, val).")
    task = parse_name(name)
    if task.scene.startswith("powderworld-"):
        raise ValueError(
            f"'{name}' has discrete actions, and flow policies act in continuous spaces: its environment can be made, "
            "its data cannot be trained on."
        )
    if sparse and task.mode != "singletask":
        raise ValueError(f"'{name}' has goals, and rewards of -1 and 0 already; sparse=True is for single tasks.")
    if data_dir is None:
        folder = finding.find_folder(name, task, PUBLISHED_DATA_DIR, GENERATED_DATA_DIR, split)
    else:
        folder = Path(data_dir)
    files = _find_files(name, task, folder, split, offline=not download, full_check=full_check)
    provenance = _provenance(files, task, folder, split, sparse)
    reader = functools.cache(lambda: Reader(name, task, sparse=sparse, compact=compact, provenance=provenance))
    dataset = from_shards(
        {"name": name, "source": "ogbench", "compact": compact, "provenance": provenance},
        files,
        lambda file: reader()(file),
        storage or ("ram" if len(files) == 1 else "memmap"),
        cache_dir,
    )
    if reader.cache_info().currsize:
        reader().env.close()
    return dataset


def _find_files(name: str, task: TaskName, folder: Path, split: str, *, offline: bool, full_check: bool) -> list[Path]:
    """What to read, in order."""
    files = files_in(task, folder, split)
    are_shards = bool(files) and files != [data_file(task, folder, split)]
    if are_shards or (files and is_generated(task, folder)):
        return files  # There is nothing to compare them with.
    if task.size:
        raise FileNotFoundError(finding.missing_shards(name, task, folder))
    return [_find_file(name, task, folder, split, offline=offline, full_check=full_check)]


def _find_file(name: str, task: TaskName, data_dir: Path, split: str, *, offline: bool, full_check: bool) -> Path:
    path = data_file(task, data_dir, split)
    if files_in(task, GENERATED_DATA_DIR, split):
        advice = f" A generated file is there: pass data_dir='{GENERATED_DATA_DIR}' (--data-dir)."
    elif can_generate(name):
        without = "" if data_dir == PUBLISHED_DATA_DIR else ", and load it without data_dir"
        advice = f" Or run `flowpolicies data generate ogbench:{name}`{without}."
    else:
        advice = ""
    url = f"{DATASET_URL}/{path.name}"
    try:
        return download(url, path, sha256=SHA256.get(path.name), check=_check, full=full_check, offline=offline or None)
    except (ConnectionError, FileNotFoundError) as error:
        raise type(error)(f"{error}{advice}") from error


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


def _provenance(files: list[Path], task: TaskName, folder: Path, split: str, sparse: bool) -> dict[str, Any]:
    provenance: dict[str, Any] = {
        "source": "ogbench",
        "ogbench": ogbench_version(),
        "file": files[0].name,
        "split": split,
        "reward_timing": "state before the step",
        "environment_reward_timing": reward_timing(),
        "sparse": sparse,
        "action_margin": ACTION_MARGIN,
    }
    if len(files) > 1:
        provenance |= {"file": files[0].parent.name, "files": len(files)}
    if task.mode != "singletask":
        provenance |= {"reward_timing": "0 at the goal", "goals": "hindsight"}
        del provenance["environment_reward_timing"]
    if is_generated(task, folder):
        return {**provenance, "generated": json.loads(record_file(task, folder).read_text())}
    downloaded = read_record(files[0]) if len(files) == 1 else None
    return provenance if downloaded is None else {**provenance, "sha256": downloaded.sha256}
