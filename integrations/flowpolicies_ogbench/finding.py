"""Paths and known hashes of OGBench's data files: one file for each split of a dataset, or a folder of shards."""

import warnings
from pathlib import Path

from ogbench.utils import DATASET_URL, DEFAULT_DATASET_DIR

from flowpolicies_ogbench.names import TaskName

PUBLISHED_DATA_DIR = Path(DEFAULT_DATASET_DIR)
"""Folder where OGBench keeps the files that it downloads."""

GENERATED_DATA_DIR = Path("~/.cache/flowpolicies/ogbench")
"""Folder where `generate` writes. It is a folder of its own, so that generated files cannot be mistaken for published
ones."""

SHA256: dict[str, str] = {}
"""SHA-256 of published files by file name (`sha256sum *.npz` prints them), which every download is checked against.

OGBench publishes no hashes, and this table lists only those on which two independent downloads agreed, so far none. For
a file that is not listed, the hash is taken at the first download and checked from then on.
"""


def data_file(task: TaskName, data_dir: Path, split: str) -> Path:
    """Path of the single data file of a split, with the name that OGBench gives it."""
    return data_dir.expanduser() / f"{task.dataset}{'-val' if split == 'val' else ''}.npz"


def shard_file(task: TaskName, data_dir: Path, split: str, number: int) -> Path:
    """Path of a shard with the name that `generate` gives it; the order of the names is that of the shards."""
    return data_dir.expanduser() / task.dataset / f"{task.dataset}-{number:03d}{'-val' if split == 'val' else ''}.npz"


def record_file(task: TaskName, data_dir: Path) -> Path:
    """Path of the JSON file in which `generate` records how it made the data files beside it."""
    return data_dir.expanduser() / f"{task.dataset}.json"


def is_generated(task: TaskName, data_dir: Path) -> bool:
    """Whether a complete run of `generate` made the files of the dataset in this folder."""
    return record_file(task, data_dir).is_file()


def files_in(task: TaskName, data_dir: Path, split: str) -> list[Path]:
    """The existing files of a split in order: one file, or the shards in a folder with the dataset's name, or none.

    Args:
        task: The parsed name of the dataset.
        data_dir: Folder of the data files, or the folder of the shards itself.
        split: "train" or "val".
    """
    if (file := data_file(task, data_dir, split)).is_file():
        return [file]
    data_dir = data_dir.expanduser()
    shards = _shards(data_dir / task.dataset, split)
    return shards or (_shards(data_dir, split) if task.size and data_dir.name == task.dataset else [])


def find_folder(name: str, task: TaskName, published: Path, generated: Path, split: str) -> Path:
    """The folder to read from when the user gave none.

    It is the folder of published files, unless only generated files exist. Those are used with a warning, because they
    contain other episodes than the published ones.
    """
    if files_in(task, published, split) or not is_generated(task, generated):
        return published
    warnings.warn(
        f"'{name}': using the data that `flowpolicies data generate` made in '{generated.expanduser()}', because "
        f"OGBench's published files are not in '{published}'. Generated data contain other episodes, so results will "
        "differ. Pass data_dir= (--data-dir) to choose the folder.",
        stacklevel=3,
    )
    return generated


def missing_shards(name: str, task: TaskName, data_dir: Path) -> str:
    """The error message for a large dataset whose shards are missing; they are never downloaded automatically."""
    folder = data_dir.expanduser() / task.dataset
    return (
        f"'{name}' needs the {task.size} dataset, which consists of many .npz files of about a million transitions "
        f"each, and '{folder}' has none. Download them once with: wget -r -np -nH --cut-dirs=2 -A '*.npz' -P "
        f"'{data_dir.expanduser()}' {DATASET_URL}/{task.dataset}/ . If you have them in another folder, pass it as "
        "data_dir (--data-dir)."
    )


def _shards(folder: Path, split: str) -> list[Path]:
    files = sorted(folder.glob("*.npz"))
    return [file for file in files if ("-val" in file.stem) == (split == "val")]
