"""Parsing of OGBench's dataset names, such as "cube-single-play-singletask-task2-v0"."""

import re
from dataclasses import dataclass
from typing import Literal

import gymnasium
import ogbench  # noqa: F401  # Registers the environments.

from flowpolicies.messages import did_you_mean

DATASET_TYPES = ("navigate", "stitch", "explore", "play", "noisy")

Mode = Literal["singletask", "goals", "oraclerep"]
"""How a dataset is rewarded.

singletask: rewards of one fixed task. goals: goal-conditioned, a goal is an observation. oraclerep: goal-conditioned, a
goal is OGBench's short representation of a state.
"""

_KINDS = "|".join(DATASET_TYPES)
_PATTERN = re.compile(
    rf"(?P<scene>.+)-(?P<kind>{_KINDS})(?:-(?P<size>\d+[mb]))?"
    r"(?:-singletask(?P<task>-task\d+)?|-(?P<oracle>oraclerep))?-(?P<version>v\d+)"
)


@dataclass(frozen=True)
class TaskName:
    """The components of a dataset's name."""

    scene: str
    """Robot and scene, such as "cube-single"."""

    kind: str
    """How the data were collected: one of `DATASET_TYPES`."""

    task: str
    """Suffix "-task1" to "-task5", or "" for the default task of the scene and for goal-conditioned names."""

    version: str
    """Version of the environment and the data, such as "v0"."""

    mode: Mode = "singletask"
    """Rewards of a fixed task, or goals in one of two representations."""

    size: str = ""
    """Number of transitions of a large dataset, such as "100m", which is a folder of many files; "" for others."""

    @property
    def environment(self) -> str:
        """Gymnasium id of the environment that belongs to the name."""
        if self.mode == "singletask":
            return f"{self.scene}-singletask{self.task}-{self.version}"
        return self.collecting_environment

    @property
    def collecting_environment(self) -> str:
        """Gymnasium id of the environment in which the data were collected; it has no fixed task."""
        return f"{self.scene}-{self.version}"

    @property
    def dataset(self) -> str:
        """Name of the data file without its suffix; the tasks of a scene share one file."""
        size = f"-{self.size}" if self.size else ""
        return f"{self.scene}-{self.kind}{size}-{self.version}"


def parse_name(name: str) -> TaskName:
    """Parse the name of a dataset.

    Raises:
        ValueError: if the name has another form, or OGBench has no such environment.
    """
    match = _PATTERN.fullmatch(name)
    if match is None:
        raise ValueError(
            f"'{name}' is not the name of an OGBench dataset{_explain_missing_kind(name)} Names look like "
            "'cube-single-play-singletask-task1-v0', or 'cube-single-play-v0' for goal-conditioned data."
        )
    mode: Mode = "singletask" if "-singletask" in name else "oraclerep" if match["oracle"] else "goals"
    task = TaskName(match["scene"], match["kind"], match["task"] or "", match["version"], mode, match["size"] or "")
    if task.environment not in gymnasium.registry:
        known = [
            _with_kind(key, task.kind) for key in _environments() if ("-singletask" in key) == (mode == "singletask")
        ]
        hint = did_you_mean(_with_kind(task.environment, task.kind), known)
        raise ValueError(f"OGBench has no environment '{task.environment}' for '{name}'.{hint}")
    return task


def check_name(name: str) -> None:
    """Raises what `parse_name` raises; flowpolicies calls it before torch is imported."""
    parse_name(name)


def task_names(name: str) -> list[str]:
    """The names of the five single-task datasets that share the data of `name`.

    Args:
        name: Name of one of the five tasks, of the default task, or of the goal-conditioned dataset.

    Raises:
        ValueError: if it is not the name of an OGBench dataset.
    """
    task = parse_name(name)
    stem = task.dataset.removesuffix(f"-{task.version}")
    return [f"{stem}-singletask-task{number}-{task.version}" for number in range(1, 6)]


def _environments() -> list[str]:
    return [key for key, spec in gymnasium.registry.items() if str(spec.entry_point).startswith("ogbench.")]


def _with_kind(environment: str, kind: str) -> str:
    """The name of the dataset of a type that belongs to an environment."""
    stem, version = re.sub("-singletask.*", "", environment), environment.rpartition("-")[2]
    stem = stem.removesuffix(f"-{version}")
    return environment.replace(stem, f"{stem}-{kind}", 1)


def _explain_missing_kind(name: str) -> str:
    if re.search(rf"-(?:{_KINDS})(?:-|$)", name):
        return "."
    hint = next(filter(None, (did_you_mean(word, DATASET_TYPES, cutoff=0.7) for word in name.split("-"))), "")
    return f": it contains no dataset type (known: {', '.join(DATASET_TYPES)}).{hint}"
