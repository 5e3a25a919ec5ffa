"""Makes OGBench's datasets on this machine, with OGBench's environments, scripted policies and parameters."""

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from tqdm import tqdm

from flowpolicies_ogbench.finding import GENERATED_DATA_DIR, data_file, files_in, record_file, shard_file
from flowpolicies_ogbench.manipulation import ManipulationCollector
from flowpolicies_ogbench.names import TaskName, parse_name
from flowpolicies_ogbench.parts import Parts
from flowpolicies_ogbench.pointmaze import PointMazeCollector
from flowpolicies_ogbench.workers import map_in_workers

Array = npt.NDArray[Any]

SPLITS = ("train", "val")

SHARD_SIZE = 1_000_000
"""Most transitions in one file."""

MANIPULATION_EPISODES = {
    "cube-single": 1000,
    "cube-double": 1000,
    "cube-triple": 3000,
    "cube-quadruple": 5000,
    "cube-octuple": 5000,  # OGBench publishes only sets of 100 million and more; the size is that of its neighbour.
    "scene": 1000,
    "puzzle-3x3": 1000,
    "puzzle-4x4": 1000,
    "puzzle-4x5": 3000,
    "puzzle-4x6": 5000,
}


class Recipe(NamedTuple):
    """How a dataset was published."""

    collector: Callable[[TaskName, int], Callable[[list[int]], list[dict[str, Array]]]]
    num_episodes: int
    num_steps: int


POINTMAZE = {
    "navigate": Recipe(PointMazeCollector, 1000, 1001),
    "stitch": Recipe(PointMazeCollector, 5000, 201),
    "explore": Recipe(PointMazeCollector, 10000, 501),  # OGBench publishes none; the size is that of its antmaze-*.
}
POINTMAZE_GIANT = Recipe(PointMazeCollector, 500, 2001)


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
    """Write the training and validation files of a dataset in OGBench's format, and return the training file.

    An episode is a function of seed, split and number: the data does not depend on `workers`, and more episodes begin
    with the same ones. Files of an earlier run with the same parameters are kept as they are, and a run that was
    interrupted goes on where it was: episodes are kept one by one until their file is written.

    More transitions than `shard_size` go into several files, in a folder with the dataset's name, which is returned
    instead; `load` reads either.

    Args:
        name: such as "cube-double-play-v0", or the name of any of its tasks, as they share their data.
        data_dir: folder to write to; None: `GENERATED_DATA_DIR`, where `load` looks too.
        num_episodes: of training, and a tenth as many for validation; None: as published.
        max_episode_steps: rows per episode, the last of which is no transition; None: as published.
        seed: of everything.
        workers: number of processes. A script that asks for more than one needs `if __name__ == "__main__":`.
        progress: show a progress bar.
        overwrite: replace what is there.
        shard_size: most transitions in a file.

    Raises:
        ValueError: if there is no recipe for this dataset, or a number is too small.
        FileExistsError: if other files are in the way and `overwrite` is off.
        OSError: if `data_dir` cannot be written to; ChildProcessError, one of its kinds, if a worker died.
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
    parts = Parts(folder / f".{task.dataset}.parts", counts, max(1, shard_size // (num_steps - 1)))
    with _explained(task, folder), _locked(task, folder):
        if not overwrite and _is_done(task, folder, parameters):
            return _result(task, folder)
        parts.open({**parameters, "versions": _versions(), "shard_size": shard_size}, overwrite=overwrite)
        _collect(setup, parts, seed=seed, workers=workers, title=task.dataset if progress else None)
        _remove(task, folder)
        parts.move(lambda split, number, of: _place(task, folder, split, number, of))
        _write_record(task, folder, {**parameters, "workers": workers, "versions": _versions()})
    return _result(task, folder)


@contextmanager
def _locked(task: TaskName, folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{task.dataset}.lock"):
        yield


@contextmanager
def _explained(task: TaskName, folder: Path) -> Iterator[None]:
    """Says of errors of the operating system, such as a full disk, what they hindered and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # Ours, and explained.
            raise
        raise type(error)(
            f"cannot write '{task.dataset}' to '{folder}': {error.strerror}. Mend that and run it again (episodes that "
            "are done are kept), or pass another data_dir (--out)."
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
        raise ValueError(f"'{name}' cannot be generated: {_obstacle(task)}. Can be: {_possible()}.")
    if task.size:
        transitions = int(task.size[:-1]) * {"m": 10**6, "b": 10**9}[task.size[-1]]
        recipe = recipe._replace(num_episodes=transitions // (recipe.num_steps - 1))
    return recipe


def _obstacle(task: TaskName) -> str:
    if task.scene.startswith(("ant", "humanoid")):
        return (
            "its robot walks by policies that OGBench's authors trained, which are no part of the package; download "
            "the data, or put it into the folder that loading it names"
        )
    if task.scene.startswith("visual-"):
        return "images are not generated here"
    return "OGBench has no script for it"


def _possible() -> str:
    return f"pointmaze-* with {', '.join(POINTMAZE)}; {', '.join(MANIPULATION_EPISODES)} with play or noisy"


def _check_least(name: str, **values: tuple[int, int]) -> None:
    for key, (value, least) in values.items():
        if value < least:
            called = {"num_episodes": "episodes (num_episodes)"}.get(key, key)  # The former on the command line.
            raise ValueError(f"{called} is {value}, but generating '{name}' needs at least {least}.")


def _is_done(task: TaskName, folder: Path, parameters: Mapping[str, Any]) -> bool:
    """Whether the files are there already, made with these parameters."""
    files = [file for split in SPLITS for file in files_in(task, folder, split)]
    record = record_file(task, folder)
    if not files and not record.exists():
        return False
    advice = "Pass overwrite=True (--overwrite) to replace them, or another data_dir (--out)."
    if not record.exists() or not all(files_in(task, folder, split) for split in SPLITS):
        raise FileExistsError(
            f"'{folder}' has files of '{task.dataset}' that no complete run of generate left there. {advice}"
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
    """What is there of the dataset; the record first: its presence says that all files are whole."""
    record_file(task, folder).unlink(missing_ok=True)
    for split in SPLITS:
        for file in files_in(task, folder, split):
            file.unlink()


def _make_collect(
    collector: Callable[[TaskName, int], Callable[[list[int]], list[dict[str, Array]]]], task: TaskName, num_steps: int
) -> Callable[[list[int]], dict[str, Array]]:
    """A function from a seed to the arrays of an episode."""
    collect = collector(task, num_steps)

    def collect_arrays(seed: list[int]) -> dict[str, Array]:
        rows = collect(seed)
        types = {key: np.int64 if key == "button_states" else np.float32 for key in rows[0]}
        arrays: dict[str, Array] = {key: np.array([row[key] for row in rows], dtype) for key, dtype in types.items()}
        return {**arrays, "terminals": np.arange(1, num_steps + 1) == num_steps}

    return collect_arrays


def _collect(
    setup: Callable[[], Callable[[list[int]], dict[str, Array]]],
    parts: Parts,
    *,
    seed: int,
    workers: int,
    title: str | None,
) -> None:
    """All episodes that are missing, each kept when it is there."""
    todo = parts.missing()
    total = sum(parts.counts.values())
    seeds = [[seed, SPLITS.index(split), number] for split, number in todo]
    with (
        closing(map_in_workers(setup, seeds, workers)) as episodes,
        tqdm(
            desc=title, total=total, initial=total - len(todo), unit="episode", smoothing=0.05, disable=title is None
        ) as bar,
    ):
        for position, episode in episodes:
            parts.add(*todo[position], episode)
            bar.update()


def _write_record(task: TaskName, folder: Path, record: Mapping[str, Any]) -> None:
    path = record_file(task, folder)
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(temporary, path)


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("ogbench", "mujoco", "gymnasium", "numpy")}
