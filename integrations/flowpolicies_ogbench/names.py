"""OGBench's names of single-task datasets, such as "cube-single-play-singletask-task2-v0"."""

import difflib
import re
from dataclasses import dataclass

import gymnasium
import ogbench  # noqa: F401  # Registers the environments.

DATASET_TYPES = ("navigate", "stitch", "explore", "play", "noisy")

_PATTERN = re.compile(r"(?P<scene>.+)-(?P<kind>[a-z]+)-singletask(?P<task>-task\d+)?-(?P<version>v\d+)")


@dataclass(frozen=True)
class TaskName:
    """The parts of a name."""

    scene: str
    """Robot and scene, such as "cube-single"."""

    kind: str
    """How the data was collected, one of `DATASET_TYPES`."""

    task: str
    """ "-task1" to "-task5", or "" for the default task of the scene."""

    version: str
    """Such as "v0"."""

    @property
    def environment(self) -> str:
        """Gymnasium id of the single-task environment."""
        return f"{self.scene}-singletask{self.task}-{self.version}"

    @property
    def collecting_environment(self) -> str:
        """Gymnasium id of the environment that the data was collected in, which has no fixed task."""
        return f"{self.scene}-{self.version}"

    @property
    def dataset(self) -> str:
        """Name of the data file without its ending: the tasks of a scene share their data."""
        return f"{self.scene}-{self.kind}-{self.version}"


def parse_name(name: str) -> TaskName:
    """The parts of a single-task name.

    Raises:
        ValueError: if the name has another form, or OGBench has no such environment.
    """
    if "-100m-" in name:
        raise ValueError(
            f"'{name}' is one of OGBench's 100M sets, which flowpolicies cannot load yet. "
            f"Use the standard data of the same task: --dataset ogbench:{name.replace('-100m-', '-')}"
        )
    match = _PATTERN.fullmatch(name)
    if match is None:
        raise ValueError(
            f"'{name}' is not an OGBench single-task name; those look like "
            f"'{_single_task_form(name)}'. Goal-conditioned names are not supported."
        )
    task = TaskName(match["scene"], match["kind"], match["task"] or "", match["version"])
    if task.kind not in DATASET_TYPES:
        raise ValueError(
            f"'{name}' names no dataset type before 'singletask' (known: {', '.join(DATASET_TYPES)}). "
            "OGBench's single-task names look like 'cube-single-play-singletask-task1-v0'."
        )
    if task.environment not in gymnasium.registry:
        known = [key for key in gymnasium.registry if "-singletask" in key]
        close = difflib.get_close_matches(task.environment, known, n=1)
        hint = f" Did you mean '{close[0].replace('-singletask', f'-{task.kind}-singletask')}'?" if close else ""
        raise ValueError(f"OGBench has no environment '{task.environment}' for '{name}'.{hint}")
    return task


def task_names(name: str) -> list[str]:
    """The names of the five tasks that share the data of `name`, which may name one of them or the default.

    Raises:
        ValueError: if `name` is not a single-task name.
    """
    task = parse_name(name)
    return [f"{task.scene}-{task.kind}-singletask-task{number}-{task.version}" for number in range(1, 6)]


def _single_task_form(name: str) -> str:
    match = re.fullmatch(rf"(.+-(?:{'|'.join(DATASET_TYPES)}))-(v\d+)", name)
    return f"{match[1]}-singletask-{match[2]}" if match else "cube-single-play-singletask-task1-v0"
