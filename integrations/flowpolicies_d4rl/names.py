"""Table of D4RL's datasets: their files, time limits, and reference returns for normalised scores.

The numbers and file names are those of d4rl/infos.py and of the `__init__.py` of each suite in
https://github.com/Farama-Foundation/D4RL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, final

from flowpolicies.messages import did_you_mean

Family = Literal["antmaze", "adroit", "locomotion", "kitchen"]


@final
@dataclass(frozen=True)
class Task:
    """A dataset of D4RL."""

    name: str
    """Name of the dataset, such as "antmaze-large-play-v2"."""
    family: Family
    """Suite that the environment belongs to."""
    body: str
    """Environment within the suite: the size of the maze, the task of the hand, or the robot."""
    file: str
    """Path of the file on D4RL's server."""
    max_episode_steps: int
    """Time limit of the environment in steps; also of the data if the file does not store where episodes were cut."""
    random: float
    """Return of a random policy, whose score is 0."""
    expert: float
    """Return of an expert, whose score is 100."""


def _antmazes() -> Iterator[Task]:
    sizes = {"umaze": ("u-maze", 700), "medium": ("big-maze", 1000), "large": ("hardest-maze", 1000)}
    kinds = {"": "multistart_False_multigoal_False", "-play": "multistart_True_multigoal_False"}
    kinds["-diverse"] = "multistart_True_multigoal_True"
    versions = {"v0": "ant_maze_new/Ant_maze_{}_noisy_{}_sparse", "v2": "ant_maze_v2/Ant_maze_{}_noisy_{}_sparse_fixed"}
    for size, kind, version in product(sizes, kinds, versions):
        if kind == ("-play" if size == "umaze" else ""):
            # D4RL has no such datasets: "play" is missing in the small maze, and the type without a suffix elsewhere.
            continue
        maze, steps = sizes[size]
        file = f"{versions[version].format(maze, kinds[kind])}.hdf5"
        yield Task(f"antmaze-{size}{kind}-{version}", "antmaze", size, file, steps, 0.0, 1.0)


def _hands() -> Iterator[Task]:
    references = {
        "pen": (96.262799, 3076.8331017826877),
        "hammer": (-274.856578, 12794.134825156867),
        "door": (-56.512833, 2880.5693087298737),
        "relocate": (-6.425911, 4233.877797728884),
    }
    first = {"human": "{}-v0_demos_clipped", "cloned": "{}-demos-v0-bc-combined", "expert": "{}-v0_expert_clipped"}
    for (body, (random, expert)), kind in product(references.items(), first):
        steps = 100 if body == "pen" else 200
        files = {"v0": f"hand_dapg/{first[kind].format(body)}.hdf5", "v1": f"hand_dapg_v1/{body}-{kind}-v1.hdf5"}
        for version, file in files.items():
            yield Task(f"{body}-{kind}-{version}", "adroit", body, file, steps, random, expert)


def _locomotion() -> Iterator[Task]:
    references = {"halfcheetah": (-280.178953, 12135.0), "hopper": (-20.272305, 3234.3), "walker2d": (1.629008, 4592.3)}
    kinds = ("random", "medium", "expert", "medium-replay", "full-replay", "medium-expert")
    for (body, (random, expert)), kind, version in product(references.items(), kinds, ("v1", "v2")):
        file = f"gym_mujoco_{version}/{body}_{kind.replace('-', '_')}-{version}.hdf5"
        yield Task(f"{body}-{kind}-{version}", "locomotion", body, file, 1000, random, expert)


def _kitchens() -> Iterator[Task]:
    subtasks = {
        "complete": "mini_kitchen_microwave_kettle_light_slider",
        "partial": "kitchen_microwave_kettle_light_slider",
        "mixed": "kitchen_microwave_kettle_bottomburner_light",
    }
    for kind, file in subtasks.items():
        yield Task(f"kitchen-{kind}-v0", "kitchen", "kitchen", f"kitchen/{file}-v0.hdf5", 280, 0.0, 4.0)


TASKS = {task.name: task for tasks in (_antmazes, _hands, _locomotion, _kitchens) for task in tasks()}
"""All datasets by name."""


def find_task(name: str) -> Task:
    """Find a dataset by its name.

    Raises:
        ValueError: if no dataset has this name.
    """
    if name not in TASKS:
        raise ValueError(
            f"unknown D4RL dataset '{name}'.{did_you_mean(name, TASKS)} Known are antmaze-*-v0 and v2, pen, hammer, "
            "door and relocate-*-v0 and v1, halfcheetah, hopper and walker2d-*-v1 and v2, and kitchen-*-v0. "
            "Load any other file with this layout by its path: hdf5:PATH."
        )
    return TASKS[name]


def check_name(name: str) -> None:
    """Raises what `find_task` raises; flowpolicies calls it before torch is imported."""
    find_task(name)
