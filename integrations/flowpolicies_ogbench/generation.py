"""Local generation of OGBench's datasets, with OGBench's environments, scripted policies and parameters.

The numbers of episodes and steps are those of the authors' commands (data_gen_scripts/commands.sh in
https://github.com/seohongpark/ogbench).
"""

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from flowpolicies.files import write_json
from flowpolicies.tree import Array
from flowpolicies_ogbench.episode_folder import EpisodeFolder
from flowpolicies_ogbench.finding import GENERATED_DATA_DIR, data_file, files_in, record_file, shard_file
from flowpolicies_ogbench.manipulation import ManipulationCollector
from flowpolicies_ogbench.names import TaskName, parse_name
from flowpolicies_ogbench.pointmaze import PointMazeCollector
from flowpolicies_ogbench.workers import map_in_workers

SPLITS = ("train", "val")

SHARD_SIZE = 1_000_000
"""Default largest number of transitions in a data file."""

MANIPULATION_EPISODES = {
    "cube-single": 1000,
    "cube-double": 1000,
    "cube-triple": 3000,
    "cube-quadruple": 5000,
    # OGBench publishes cube-octuple only with 100 million transitions and more; this is the size of cube-quadruple.
    "cube-octuple": 5000,
    "scene": 1000,
    "puzzle-3x3": 1000,
    "puzzle-4x4": 1000,
    "puzzle-4x5": 3000,
    "puzzle-4x6": 5000,
}
"""Published number of training episodes of each manipulation scene."""

EpisodeCollector = Callable[[list[int]], list[dict[str, Array]]]
"""A function from the seed of an episode to its rows."""


class Recipe(NamedTuple):
    """How a dataset is collected, and the size that was published."""

    collector: Callable[[TaskName, int], EpisodeCollector]
    """Makes the function that collects an episode, from the dataset and the number of rows of an episode."""
    num_episodes: int
    """Number of training episodes."""
    num_steps: int
    """Number of rows of an episode."""


POINTMAZE = {
    "navigate": Recipe(PointMazeCollector, 1000, 1001),
    "stitch": Recipe(PointMazeCollector, 5000, 201),
    # OGBench publishes no pointmaze-*-explore; this is the size of its antmaze-*-explore.
    "explore": Recipe(PointMazeCollector, 10000, 501),
}
"""Recipes of the pointmaze datasets by type."""

POINTMAZE_GIANT = Recipe(PointMazeCollector, 500, 2001)
"""Recipe of pointmaze-giant-navigate, whose episodes are longer."""


def generate(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    num_episodes: int | None = None,
    max_episode_steps: int | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: bool = True,
    overwrite: bool = False,
    shard_size: int = SHARD_SIZE,
) -> Path:
    """Generate the training and validation files of a dataset in OGBench's format.

    An episode depends only on the seed, its split and its number. So the data do not depend on `workers`, and a
    larger dataset begins with the episodes of a smaller one. Files of an earlier run with the same parameters are kept
    unchanged. An interrupted run continues where it stopped, because each episode is saved until its data file is
    written.

    If a split has more than `shard_size` transitions, it is written as several files (shards) in a folder with the
    dataset's name; `load` reads both forms.

    Args:
        name: Name of the dataset, such as "cube-double-play-v0", or of one of its tasks, which share their data.
        data_dir: Folder to write to; None: `GENERATED_DATA_DIR`, where `load` looks too.
        num_episodes: Number of training episodes; a tenth as many are for validation. None: as published.
        max_episode_steps: Number of rows of an episode; its last row is not a transition. None: as published.
        seed: Seed of all episodes.
        workers: Number of processes. A script that asks for more than one needs `if __name__ == "__main__":`.
        progress: Show a progress bar.
        overwrite: Replace existing files of the dataset.
        shard_size: Largest number of transitions in a file.

    Returns:
        Path of the training file, or of the folder of shards.

    Raises:
        ValueError: if there is no recipe for this dataset, or a number is too small.
        FileExistsError: if other files exist at the paths to write, and `overwrite` is off.
        OSError: if `data_dir` cannot be written to; its subclass ChildProcessError if a worker process died.
    """
    task = parse_name(name)
    recipe = _find_recipe(name, task)
    num_episodes = recipe.num_episodes if num_episodes is None else num_episodes
    num_steps = recipe.num_steps if max_episode_steps is None else max_episode_steps
    _check_least(
        name, num_episodes=(num_episodes, 1), max_episode_steps=(num_steps, 2), seed=(seed, 0), workers=(workers, 1)
    )
    folder = Path(data_dir or GENERATED_DATA_DIR).expanduser()
    parameters = {"dataset": task.dataset, "seed": seed, "num_episodes": num_episodes, "max_episode_steps": num_steps}
    counts = {"train": num_episodes, "val": max(1, num_episodes // 10)}
    setup = functools.partial(_make_collect, recipe.collector, task, num_steps)
    episodes = EpisodeFolder(folder / f".{task.dataset}.parts", counts, max(1, shard_size // (num_steps - 1)))
    with _explain_os_errors(task, folder), _lock(task, folder):
        if not overwrite and _is_done(task, folder, parameters):
            return _result(task, folder)
        episodes.open({**parameters, "versions": _versions(), "shard_size": shard_size}, overwrite=overwrite)
        _generate_episodes(setup, episodes, seed=seed, workers=workers, title=task.dataset if progress else None)
        _remove(task, folder)
        episodes.move(lambda split, number, of: _place(task, folder, split, number, of))
        write_json(record_file(task, folder), {**parameters, "workers": workers, "versions": _versions()})
    return _result(task, folder)


@contextmanager
def _lock(task: TaskName, folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{task.dataset}.lock"):
        yield


@contextmanager
def _explain_os_errors(task: TaskName, folder: Path) -> Iterator[None]:
    """Add to errors of the operating system, such as a full disk, what could not be written and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # Raised by this package, with an explanation.
            raise
        raise type(error)(
            f"cannot write '{task.dataset}' to '{folder}': {error.strerror}. Solve that and repeat the command "
            "(finished episodes are kept), or pass another data_dir (--out)."
        ) from error


def can_generate(name: str) -> bool:
    """Whether `generate` has a recipe for this dataset."""
    try:
        _find_recipe(name, parse_name(name))
    except ValueError:
        return False
    return True


def _find_recipe(name: str, task: TaskName) -> Recipe:
    if task.scene.startswith("pointmaze-") and task.kind in POINTMAZE:
        recipe = POINTMAZE_GIANT if "giant" in task.scene and task.kind == "navigate" else POINTMAZE[task.kind]
    elif task.scene in MANIPULATION_EPISODES and task.kind in ("play", "noisy"):
        recipe = Recipe(ManipulationCollector, MANIPULATION_EPISODES[task.scene], 1001)
    else:
        raise ValueError(
            f"'{name}' cannot be generated: {_why_impossible(task)}. Datasets that can be generated: {_possible()}."
        )
    if task.size:
        transitions = int(task.size[:-1]) * {"m": 10**6, "b": 10**9}[task.size[-1]]
        recipe = recipe._replace(num_episodes=transitions // (recipe.num_steps - 1))
    return recipe


def _why_impossible(task: TaskName) -> str:
    if task.scene.startswith(("ant", "humanoid")):
        return (
            "its robot is controlled by policies that OGBench's authors trained and that are not part of the ogbench "
            "package; download the data, or put the file into the folder that the error message of loading it names"
        )
    if task.scene.startswith("visual-"):
        return "datasets of images are not supported"
    return "OGBench has no script for it"


def _possible() -> str:
    return f"pointmaze-* with {', '.join(POINTMAZE)}; {', '.join(MANIPULATION_EPISODES)} with play or noisy"


def _check_least(name: str, **values: tuple[int, int]) -> None:
    for key, (value, least) in values.items():
        if value < least:
            # The command line calls this option --episodes.
            label = "episodes (num_episodes)" if key == "num_episodes" else key
            raise ValueError(f"{label} is {value}, but generating '{name}' needs at least {least}.")


def _is_done(task: TaskName, folder: Path, parameters: Mapping[str, Any]) -> bool:
    """Whether an earlier run with these parameters wrote all files.

    Raises:
        FileExistsError: if there are files of the dataset that were made in another way.
    """
    files = [file for split in SPLITS for file in files_in(task, folder, split)]
    record = record_file(task, folder)
    if not files and not record.exists():
        return False
    advice = "Pass overwrite=True (--overwrite) to replace them, or another data_dir (--out)."
    if not record.exists() or not all(files_in(task, folder, split) for split in SPLITS):
        raise FileExistsError(
            f"'{folder}' has files of '{task.dataset}' that do not come from a complete run of generate. {advice}"
        )
    found = json.loads(record.read_text())
    other = [
        f"{key}={found.get(key)!r} instead of {value!r}" for key, value in parameters.items() if found.get(key) != value
    ]
    if other:
        raise FileExistsError(f"'{folder}' has '{task.dataset}' with {', '.join(other)}. {advice}")
    return True


def _place(task: TaskName, folder: Path, split: str, number: int, of: int) -> Path:
    return data_file(task, folder, split) if of == 1 else shard_file(task, folder, split, number)


def _result(task: TaskName, folder: Path) -> Path:
    """The training file, or the folder of shards."""
    file = data_file(task, folder, "train")
    return file if file.is_file() else shard_file(task, folder, "train", 0).parent


def _remove(task: TaskName, folder: Path) -> None:
    """Delete the files of the dataset."""
    # The record is deleted first, because its existence means that all files are complete.
    record_file(task, folder).unlink(missing_ok=True)
    for split in SPLITS:
        for file in files_in(task, folder, split):
            file.unlink()


def _make_collect(
    collector: Callable[[TaskName, int], EpisodeCollector], task: TaskName, num_steps: int
) -> Callable[[list[int]], dict[str, Array]]:
    """A function from the seed of an episode to its arrays."""
    collect = collector(task, num_steps)

    def collect_arrays(seed: list[int]) -> dict[str, Array]:
        rows = collect(seed)
        types = {key: np.int64 if key == "button_states" else np.float32 for key in rows[0]}
        arrays: dict[str, Array] = {key: np.array([row[key] for row in rows], dtype) for key, dtype in types.items()}
        return {**arrays, "terminals": np.arange(num_steps) == num_steps - 1}

    return collect_arrays


def _generate_episodes(
    setup: Callable[[], Callable[[list[int]], dict[str, Array]]],
    episodes: EpisodeFolder,
    *,
    seed: int,
    workers: int,
    title: str | None,
) -> None:
    """Collect all missing episodes, and save each as soon as it is finished."""
    todo = episodes.missing()
    total = sum(episodes.counts.values())
    seeds = [[seed, SPLITS.index(split), number] for split, number in todo]
    with (
        closing(map_in_workers(setup, seeds, workers)) as results,
        tqdm(
            desc=title, total=total, initial=total - len(todo), unit="episode", smoothing=0.05, disable=title is None
        ) as bar,
    ):
        for position, arrays in results:
            episodes.add(*todo[position], arrays)
            bar.update()


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("ogbench", "mujoco", "gymnasium", "numpy")}
