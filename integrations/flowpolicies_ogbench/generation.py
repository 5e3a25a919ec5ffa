"""Makes OGBench's datasets on this machine, with OGBench's environments, scripted policies and parameters."""

import functools
import json
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from flowpolicies.data import write_npz
from flowpolicies_ogbench.loading import GENERATED_DATA_DIR, data_file, record_file
from flowpolicies_ogbench.manipulation import ManipulationCollector
from flowpolicies_ogbench.names import TaskName, parse_name
from flowpolicies_ogbench.pointmaze import PointMazeCollector
from flowpolicies_ogbench.workers import map_in_workers

Array = npt.NDArray[Any]

SPLITS = ("train", "val")

MANIPULATION_EPISODES = {
    "cube-single": 1000,
    "cube-double": 1000,
    "cube-triple": 3000,
    "cube-quadruple": 5000,
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
) -> Path:
    """Write the training and validation files of a dataset in OGBench's format, and return the training file.

    An episode is a function of seed, split and number: the data does not depend on `workers`, and more episodes begin
    with the same ones. Files of an earlier run with the same parameters are kept as they are.

    Args:
        name: such as "pointmaze-medium-navigate-singletask-v0"; the tasks of a scene share their data.
        data_dir: folder to write to; None: `GENERATED_DATA_DIR`. Pass it to `load` as well.
        num_episodes: of training, and a tenth as many for validation; None: as published.
        max_episode_steps: rows per episode, the last of which is no transition; None: as published.
        seed: of everything.
        workers: number of processes. A script that asks for more than one needs `if __name__ == "__main__":`.
        progress: show a progress bar.
        overwrite: replace what is there.

    Raises:
        ValueError: if there is no recipe for this dataset, or a number is too small.
        FileExistsError: if other files are in the way and `overwrite` is off.
    """
    task = parse_name(name)
    recipe = _find_recipe(name, task)
    num_episodes = recipe.num_episodes if num_episodes is None else num_episodes
    num_steps = recipe.num_steps if max_episode_steps is None else max_episode_steps
    _check_least(
        name, num_episodes=(num_episodes, 1), max_episode_steps=(num_steps, 2), seed=(seed, 0), workers=(workers, 1)
    )
    folder = Path(data_dir or GENERATED_DATA_DIR)
    parameters = {"dataset": task.dataset, "seed": seed, "num_episodes": num_episodes, "max_episode_steps": num_steps}
    if not overwrite and _is_done(task, folder, parameters):
        return data_file(task, folder, "train")
    counts = {"train": num_episodes, "val": max(1, num_episodes // 10)}
    setup = functools.partial(_make_collect, recipe.collector, task, num_steps)
    data = _collect(setup, counts, num_steps, seed=seed, workers=workers, title=task.dataset if progress else None)
    record_file(task, folder).unlink(
        missing_ok=True
    )  # Its presence says that both files are whole and belong together.
    for split in SPLITS:
        write_npz(data_file(task, folder, split), data[split])
    _write_record(task, folder, {**parameters, "workers": workers, "versions": _versions()})
    return data_file(task, folder, "train")


def _find_recipe(name: str, task: TaskName) -> Recipe:
    if task.scene.startswith("pointmaze-") and task.kind == "navigate":
        return (
            Recipe(PointMazeCollector, 500, 2001) if "giant" in task.scene else Recipe(PointMazeCollector, 1000, 1001)
        )
    if task.scene.startswith("pointmaze-") and task.kind == "stitch":
        return Recipe(PointMazeCollector, 5000, 201)
    if task.scene in MANIPULATION_EPISODES and task.kind in ("play", "noisy"):
        return Recipe(ManipulationCollector, MANIPULATION_EPISODES[task.scene], 1001)
    raise ValueError(
        f"'{name}' cannot be generated: OGBench collected it with trained policies or from images, or never. Can be: "
        f"pointmaze-* with navigate or stitch; {', '.join(MANIPULATION_EPISODES)} with play or noisy."
    )


def _check_least(name: str, **values: tuple[int, int]) -> None:
    for key, (value, least) in values.items():
        if value < least:
            raise ValueError(f"{key} is {value}, but generating '{name}' needs at least {least}.")


def _is_done(task: TaskName, folder: Path, parameters: Mapping[str, Any]) -> bool:
    """Whether the files are there already, made with these parameters."""
    files = [data_file(task, folder, split) for split in SPLITS]
    record = record_file(task, folder)
    if not any(file.exists() for file in (*files, record)):
        return False
    advice = "Pass overwrite=True to replace them, or another data_dir."
    if not all(file.exists() for file in (*files, record)):
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
    counts: Mapping[str, int],
    num_steps: int,
    *,
    seed: int,
    workers: int,
    title: str | None,
) -> dict[str, dict[str, Array]]:
    """All episodes of each split, one after the other."""
    places = [(split, number) for split in SPLITS for number in range(counts[split])]
    seeds = [[seed, SPLITS.index(split), number] for split, number in places]
    data: dict[str, dict[str, Array]] = {split: {} for split in SPLITS}
    with closing(map_in_workers(setup, seeds, workers)) as episodes:
        for position, episode in tqdm(episodes, title, len(seeds), unit="episode", disable=title is None):
            split, number = places[position]
            for key, array in episode.items():
                if key not in data[split]:
                    data[split][key] = np.empty((counts[split] * num_steps, *array.shape[1:]), array.dtype)
                data[split][key][number * num_steps : (number + 1) * num_steps] = array
    return data


def _write_record(task: TaskName, folder: Path, record: Mapping[str, Any]) -> None:
    path = record_file(task, folder)
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(temporary, path)


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("ogbench", "mujoco", "gymnasium", "numpy")}
