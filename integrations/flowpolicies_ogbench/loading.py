"""Loading of OGBench's datasets, single-task and goal-conditioned, from one file or from many."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ogbench.utils import DATASET_URL

from flowpolicies.artifacts import ArtifactError, parse_json
from flowpolicies.data import TransitionDataset
from flowpolicies.data.downloads.download import download
from flowpolicies.data.downloads.files import read_record
from flowpolicies.data.formats.memmap import Storage, from_shards
from flowpolicies.data.reading.archive import open_npz
from flowpolicies.data.reading.limits import check_max_bytes
from flowpolicies.spaces.layout import ACTION_MARGIN
from flowpolicies_ogbench import finding
from flowpolicies_ogbench.finding import SHA256, data_file, files_in, is_generated, record_file
from flowpolicies_ogbench.generation import can_generate
from flowpolicies_ogbench.names import TaskName, parse_name
from flowpolicies_ogbench.reading import Reader
from flowpolicies_ogbench.versions import ogbench_version, reward_timing

PUBLISHED_DATA_DIR = finding.PUBLISHED_DATA_DIR
GENERATED_DATA_DIR = finding.GENERATED_DATA_DIR

FileCheck = Callable[[Path], None]
"""A function that raises a ValueError if a file has the wrong content."""


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
    max_bytes: int | None = None,
) -> TransitionDataset:
    """Load the transitions of a dataset.

    Single-task names: rewards and masks judge the state before the step, as in OGBench. So the mask is 0 in the rows
    whose state is a success, which may be inside a trajectory.

    Names without "singletask" are goal-conditioned. `desired_goal` is the state of the last row of the trajectory (for
    "oraclerep": OGBench's short representation of it, and `achieved_goal` is that of the current state). The reward is
    0 in that row and -1 in all others. `TransitionBuffer` draws other goals, see `flowpolicies.data.HindsightGoals`.

    The published files are used if they exist. Otherwise files that `generate` made on this machine are used, with a
    warning and a note in `provenance["generated"]`. If there are neither, the published files are downloaded.

    Images are channels-first.

    Args:
        name: Name of the dataset, such as "cube-single-play-singletask-task1-v0". Without "-task1" it is the default
            task of the scene. "cube-single-play-v0" and "cube-single-play-oraclerep-v0" are goal-conditioned.
            "puzzle-4x4-play-100m-singletask-v0" is a large dataset, for which `data_dir` has a folder of many files.
        data_dir: Folder of the data files; None: `PUBLISHED_DATA_DIR`, or `GENERATED_DATA_DIR` as described above.
        split: "train" or "val".
        sparse: Give rewards of -1 until the whole task is done, instead of minus the number of its unsolved subtasks.
        compact: Store each state once, as OGBench's own compact form does. This halves the memory; batches are the
            same.
        storage: "ram", or "memmap" for files that are written once and opened afterwards; None: "memmap" for datasets
            of several files, and "ram" for others.
        cache_dir: Folder of the memory-mapped files; None: ~/.cache/flowpolicies/memmap.
        download: Download a missing file from OGBench's server. Large datasets are never downloaded.
        full_check: Read the whole file to compare it with its SHA-256; otherwise it is read only if its size or its
            time of modification changed.
        max_bytes: Bytes that the arrays of a file may take in memory; None: the larger of 256 MiB and 100 times the
            size of the file.

    Raises:
        ArtifactError: if a file is damaged, or its data are faulty.
        ValueError: if the dataset does not exist, or an option has a wrong value.
        FileNotFoundError: if the file is missing, and downloads are turned off by `download` or by the environment
            variable FLOWPOLICIES_OFFLINE.
        ConnectionError: if the file cannot be downloaded.
    """
    if split not in ("train", "val"):
        raise ValueError(f"unknown split '{split}' of '{name}' (known: train, val).")
    check_max_bytes(max_bytes)
    task = parse_name(name)
    if task.scene.startswith("powderworld-"):
        raise ValueError(
            f"'{name}' has discrete actions, but flow policies need continuous actions. The environment can be used, "
            "but no policy can be trained on its data."
        )
    if sparse and task.mode != "singletask":
        raise ValueError(
            f"'{name}' is goal-conditioned, and its rewards are -1 and 0 anyway; sparse=True is for single tasks."
        )
    if data_dir is None:
        folder = finding.find_folder(name, task, PUBLISHED_DATA_DIR, GENERATED_DATA_DIR, split)
    else:
        folder = Path(data_dir)
    check = functools.partial(_check, max_bytes=max_bytes)
    files = _find_files(name, task, folder, split, check, offline=not download, full_check=full_check)
    provenance = _provenance(files, task, folder, split, sparse)
    options: dict[str, Any] = {"sparse": sparse, "compact": compact, "provenance": provenance, "max_bytes": max_bytes}
    reader = functools.cache(lambda: Reader(name, task, **options))
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


def _find_files(
    name: str, task: TaskName, folder: Path, split: str, check: FileCheck, *, offline: bool, full_check: bool
) -> list[Path]:
    """The data files in order, downloaded if they are missing."""
    files = files_in(task, folder, split)
    are_shards = bool(files) and files != [data_file(task, folder, split)]
    if are_shards or (files and is_generated(task, folder)):
        return files  # No hash or download record exists for these.
    if task.size:
        raise FileNotFoundError(finding.missing_shards(name, task, folder))
    return [_find_file(name, task, folder, split, check, offline=offline, full_check=full_check)]


def _find_file(
    name: str, task: TaskName, data_dir: Path, split: str, check: FileCheck, *, offline: bool, full_check: bool
) -> Path:
    path = data_file(task, data_dir, split)
    if files_in(task, GENERATED_DATA_DIR, split):
        advice = f" Or use the generated data: pass data_dir='{GENERATED_DATA_DIR}' (--data-dir)."
    elif can_generate(name):
        without = "" if data_dir == PUBLISHED_DATA_DIR else ", and load it without data_dir"
        advice = f" Or run `flowpolicies data generate ogbench:{name}`{without}."
    else:
        advice = ""
    url = f"{DATASET_URL}/{path.name}"
    try:
        return download(url, path, sha256=SHA256.get(path.name), check=check, full=full_check, offline=offline or None)
    except (ConnectionError, FileNotFoundError) as error:
        raise type(error)(f"{error}{advice}") from error


def _check(path: Path, max_bytes: int | None = None) -> None:
    """Check that a file is a complete archive of the arrays that every OGBench file has.

    Raises:
        ValueError: if it is not; the message is a clause about the file, for a longer message.
    """
    try:
        with open_npz(path, max_bytes) as arrays:
            missing = {"observations", "actions", "terminals"} - set(arrays)
            if missing:
                raise ValueError(f"it lacks {sorted(missing)}")
            arrays.check_all()
    except ArtifactError as error:
        damaged = f"its {error.place} is damaged: " if error.place else ""
        raise ValueError(f"{damaged}{error.problem}") from error


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
        record = record_file(task, folder)
        return {**provenance, "generated": parse_json(record.read_bytes(), record)}
    downloaded = read_record(files[0]) if len(files) == 1 else None
    return provenance if downloaded is None else {**provenance, "sha256": downloaded.sha256}
