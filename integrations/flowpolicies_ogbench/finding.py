"""Where the files of OGBench's datasets are: one per dataset, or a folder of shards."""

import warnings
from pathlib import Path

from ogbench.utils import DATASET_URL, DEFAULT_DATASET_DIR

from flowpolicies_ogbench.names import TaskName

PUBLISHED_DATA_DIR = Path(DEFAULT_DATASET_DIR)
"""Where OGBench keeps the files that it downloads."""

GENERATED_DATA_DIR = Path("~/.cache/flowpolicies/ogbench")
"""Where `generate` writes, so that local data is never mistaken for the published files."""


def data_file(task: TaskName, data_dir: Path, split: str) -> Path:
    """Path of a data file, named as OGBench names it."""
    return data_dir.expanduser() / f"{task.dataset}{'-val' if split == 'val' else ''}.npz"


def shard_file(task: TaskName, data_dir: Path, split: str, number: int) -> Path:
    """Path of a shard, as `generate` names it: sorted by name they are in order."""
    return data_dir.expanduser() / task.dataset / f"{task.dataset}-{number:03d}{'-val' if split == 'val' else ''}.npz"


def record_file(task: TaskName, data_dir: Path) -> Path:
    """Path of the file in which `generate` says how it made the data beside it."""
    return data_dir.expanduser() / f"{task.dataset}.json"


def is_generated(task: TaskName, data_dir: Path) -> bool:
    """Whether a complete run of `generate` made what is in this folder."""
    return record_file(task, data_dir).is_file()


def files_in(task: TaskName, data_dir: Path, split: str) -> list[Path]:
    """The files of a split in order: one, or the shards in a folder with the dataset's name; none if there are none.

    The folder of the shards may also be given itself.
    """
    if (file := data_file(task, data_dir, split)).is_file():
        return [file]
    data_dir = data_dir.expanduser()
    shards = _shards(data_dir / task.dataset, split)
    return shards or (_shards(data_dir, split) if task.size and data_dir.name == task.dataset else [])


def find_folder(name: str, task: TaskName, published: Path, generated: Path, split: str) -> Path:
    """The folder to read from if none was asked for: the published files' before that of generated ones.

    The latter comes with a warning: generated data is as good, but it holds other episodes.
    """
    if files_in(task, published, split) or not is_generated(task, generated):
        return published
    warnings.warn(
        f"'{name}': using the data that `flowpolicies data generate` made in '{generated.expanduser()}', as OGBench's "
        f"published files are not in '{published}'. They hold other episodes, so results differ. Pass data_dir= "
        "(--data-dir) to choose.",
        stacklevel=3,
    )
    return generated


def missing_shards(name: str, task: TaskName, data_dir: Path) -> str:
    """What to say if the shards of a large set are not there: nothing downloads them unasked."""
    folder = data_dir.expanduser() / task.dataset
    return (
        f"'{name}' needs the {task.size} set, many .npz files of about a million transitions each, and '{folder}' has "
        f"none. Fetch them once, with: wget -r -np -nH --cut-dirs=2 -A '*.npz' -P '{data_dir.expanduser()}' "
        f"{DATASET_URL}/{task.dataset}/ . If they are elsewhere, pass the folder as data_dir (--data-dir)."
    )


def _shards(folder: Path, split: str) -> list[Path]:
    files = sorted(folder.glob("*.npz"))
    return [file for file in files if ("-val" in file.stem) == (split == "val")]
