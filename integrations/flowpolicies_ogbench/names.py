"""OGBench's names of datasets, such as "cube-single-play-singletask-task2-v0"."""

import difflib
import re
from dataclasses import dataclass
from typing import Literal

import gymnasium
import ogbench  # noqa: F401  # Registers the environments.

DATASET_TYPES = ("navigate", "stitch", "explore", "play", "noisy")

Mode = Literal["singletask", "goals", "oraclerep"]
"""singletask: rewards of one task. goals: goals are observations. oraclerep: goals are OGBench's short description."""

_KINDS = "|".join(DATASET_TYPES)
_PATTERN = re.compile(
    rf"(?P<scene>.+)-(?P<kind>{_KINDS})(?:-(?P<size>\d+[mb]))?"
    r"(?:-singletask(?P<task>-task\d+)?|-(?P<oracle>oraclerep))?-(?P<version>v\d+)"
)


@dataclass(frozen=True)
class TaskName:
    """The parts of a name."""

    scene: str
    """Robot and scene, such as "cube-single"."""

    kind: str
    """How the data was collected, one of `DATASET_TYPES`."""

    task: str
    """ "-task1" to "-task5", or "" for the default task of the scene, or for goals."""

    version: str
    """Such as "v0"."""

    mode: Mode = "singletask"
    """What the rewards are about."""

    size: str = ""
    """Such as "100m" for one of the large sets, which are folders of many files."""

    @property
    def environment(self) -> str:
        """Gymnasium id of the environment."""
        if self.mode == "singletask":
            return f"{self.scene}-singletask{self.task}-{self.version}"
        return self.collecting_environment

    @property
    def collecting_environment(self) -> str:
        """Gymnasium id of the environment that the data was collected in, which has no fixed task."""
        return f"{self.scene}-{self.version}"

    @property
    def dataset(self) -> str:
        """Name of the data file without its ending: the tasks of a scene share their data."""
        size = f"-{self.size}" if self.size else ""
        return f"{self.scene}-{self.kind}{size}-{self.version}"


def parse_name(name: str) -> TaskName:
    """The parts of a name.

    Raises:
        ValueError: if the name has another form, or OGBench has no such environment.
    """
    match = _PATTERN.fullmatch(name)
    if match is None:
        raise ValueError(
            f"'{name}' is not the name of an OGBench dataset{_missing_kind(name)}; those look like "
            "'cube-single-play-singletask-task1-v0', or for goals 'cube-single-play-v0'."
        )
    mode: Mode = "singletask" if "-singletask" in name else "oraclerep" if match["oracle"] else "goals"
    task = TaskName(match["scene"], match["kind"], match["task"] or "", match["version"], mode, match["size"] or "")
    if task.environment not in gymnasium.registry:
        known = [key for key in _environments() if ("-singletask" in key) == (mode == "singletask")]
        close = difflib.get_close_matches(task.environment, known, n=1)
        hint = f" Did you mean '{_with_kind(close[0], task.kind)}'?" if close else ""
        raise ValueError(f"OGBench has no environment '{task.environment}' for '{name}'.{hint}")
    return task


def task_names(name: str) -> list[str]:
    """The names of the five tasks that share the data of `name`, which may name one of them, the default, or none.

    Raises:
        ValueError: if it is no name of a dataset.
    """
    task = parse_name(name)
    stem = task.dataset.removesuffix(f"-{task.version}")
    return [f"{stem}-singletask-task{number}-{task.version}" for number in range(1, 6)]


def _environments() -> list[str]:
    return [key for key, spec in gymnasium.registry.items() if str(spec.entry_point).startswith("ogbench.")]


def _with_kind(environment: str, kind: str) -> str:
    """Name of a dataset of an environment."""
    stem, version = re.sub("-singletask.*", "", environment), environment.rpartition("-")[2]
    stem = stem.removesuffix(f"-{version}")
    return environment.replace(stem, f"{stem}-{kind}", 1)


def _missing_kind(name: str) -> str:
    if re.search(rf"-(?:{_KINDS})(?:-|$)", name):
        return ""
    meant = next((kind for word in name.split("-") if (kind := _closest(word))), None)
    hint = f", did you mean '{meant}'?" if meant else ""
    return f": it names no dataset type (known: {', '.join(DATASET_TYPES)}{hint})"


def _closest(word: str) -> str | None:
    """The dataset type that was misspelt so."""
    return next(iter(difflib.get_close_matches(word, DATASET_TYPES, n=1, cutoff=0.7)), None)
