"""Reads the preset files in `flowpolicies/presets`, one for each environment of a suite.

A file has a TOML table for each algorithm, with the values that a paper or the authors' script gives and no others. The
values that all environments of a suite share are in its `suite.toml`. docs/presets.md describes the format.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, final

from flowpolicies.data.addresses import split_options
from flowpolicies.shell.catalog import config_of
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training.settings import TrainSettings

SUITES = (
    "ogbench",
    "ogbench-pixels",
    "ogbench-advanced",
    "ogbench-online",
    "d4rl",
    "d4rl-online",
    "pendulum",
    "pendulum-tuned",
)
"""Folders of presets, in the order in which `--preset auto` searches them."""
_COMMENTS = ("source", "notes", "unsupported")
"""Keys of a table that are not fields of a dataclass."""
_TASK = re.compile(r"-task(\d+)(?=$|-)")


@final
@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of one algorithm in one environment.

    Examples:
        >>> from flowpolicies import FQL
        >>> from flowpolicies.reproduction import load_preset
        >>> preset = load_preset("fql", "ogbench/antmaze-large-navigate")
        >>> preset.fields_of(FQL.Config)["alpha"]
        10.0
    """

    algorithm: str
    """Name of the algorithm."""
    suite: str
    """Name of the suite, which is the folder of the file."""
    environment: str
    """Name of the environment, such as "antmaze-large-navigate"."""
    task: int | None
    """Number of the OGBench task, 1 to 5; None if the environment has no tasks."""
    default_task: int | None
    """Number of the task that a dataset name without a task stands for; None if the environment has no tasks."""
    values: Mapping[str, Any]
    """Fields of `TrainSettings`, `SB3Hyperparameters` and the algorithm's `Config`, with values as in the file."""
    sources: tuple[str, ...]
    """Papers and public files that the values are from."""
    notes: tuple[str, ...] = ()
    """Remarks of the sources, such as how the authors chose the checkpoint."""
    unsupported: Mapping[str, Any] = field(default_factory=dict)
    """Published values for which this package has no field."""

    @property
    def name(self) -> str:
        """Full name of the preset, such as "ogbench/antmaze-large-navigate-task3"."""
        return f"{self.suite}/{self.environment}" + ("" if self.task is None else f"-task{self.task}")

    @property
    def dataset(self) -> str:
        """Address of the dataset."""
        return str(self.values["dataset"])

    def fields_of(self, config: type[Any]) -> dict[str, Any]:
        """The values that are fields of a dataclass, converted to the types of its fields.

        Raises:
            ValueError: if a value does not have the type of its field.
        """
        hints = typing.get_type_hints(config)
        names = [spec.name for spec in dataclasses.fields(config) if spec.name in self.values]
        return {name: convert(hints[name], self.values[name], f"{self.name}: {name}") for name in names}

    def fields(self) -> dict[str, Any]:
        """All values in the order of the file, converted to the types of their fields."""
        configs = _configs(self.algorithm)
        found = {name: value for config in configs for name, value in self.fields_of(config).items()}
        return {name: found[name] for name in self.values}

    def describe(self) -> dict[str, Any]:
        """Content of the field `preset` of `config.json`."""
        return {
            "name": self.name,
            "values": dict(self.values),
            "sources": list(self.sources),
            "notes": list(self.notes),
            "unsupported": dict(self.unsupported),
        }


def _configs(algorithm: str) -> tuple[type[Any], ...]:
    """The dataclasses whose fields a preset of this algorithm may set."""
    return (config_of(algorithm), SB3Hyperparameters, TrainSettings)


@final
@dataclass(frozen=True)
class EnvironmentPresets:
    """Presets of all algorithms in one environment: a file of a suite, or one of the datasets in its table `also`."""

    suite: str
    """Name of the suite."""
    name: str
    """Name of the environment."""
    table: Mapping[str, Any]
    """Content of the environment's file."""
    common: Mapping[str, Any]
    """Content of the suite's `suite.toml`."""

    def algorithms(self) -> list[str]:
        """Names of the algorithms that have a preset."""
        only = self.table.get("algorithms")
        tables = {key: table for key, table in self.table.items() if isinstance(table, dict)}
        names = [key for key, table in tables.items() if key not in ("all", "also") and "same_as" not in table]
        return [name for name in names if only is None or name in only]

    def same_as(self, algorithm: str) -> str | None:
        """Name of the algorithm that the published runs of `algorithm` are equal to in this environment, if any."""
        own = self.table.get(algorithm, {})
        return str(own["same_as"]) if "same_as" in own else None

    def tasks_of(self, algorithm: str) -> tuple[int | None, ...]:
        """Tasks for which an algorithm has presets: all, or those with a table of their own; (None,) without tasks."""
        return self._tasks_of(self.table[algorithm])

    def _tasks_of(self, own: Mapping[str, Any]) -> tuple[int | None, ...]:
        return tuple(_task_tables(own)) or tuple(self.table.get("tasks", [None]))

    def answers_to(self, key: str) -> bool:
        """Whether a name means this environment; it may lack the version, and have a suffix such as "-sparse"."""
        plain = plain_name(key)
        return plain == self.name or plain == re.sub(r"-v\d+$", "", self.name)

    def is_meant_by(self, address: str) -> bool:
        """Whether an address names a dataset or an environment that these presets are for."""
        source, _, name = address.partition(":")
        return source == self.table["dataset"].partition(":")[0] and self.answers_to(split_task(name)[0])

    def preset(self, algorithm: str, task: int | None, *, only_common: bool = False) -> Preset:
        """Merges the values that apply to an algorithm; those for fewer cases override those for more.

        Args:
            algorithm: name of the algorithm.
            task: number of the task; None: the default task.
            only_common: leave out the values of the algorithm in this environment.

        Raises:
            ValueError: if the algorithm has no preset for this task.
        """
        own = {} if only_common else self.table[algorithm]
        possible = self._tasks_of(own)
        default = self.table.get("default_task")
        if task is None:
            task = default if default in possible else possible[0]
        if task not in possible:
            known = "none, it has no tasks" if None in possible else ", ".join(f"task{n}" for n in possible)
            raise ValueError(f"{algorithm} has no preset '{self.suite}/{self.name}-task{task}' (tasks: {known}).")
        layers = [*self._common_layers(algorithm), *_own_layers(own, task)]
        merged = {key: value for layer in layers for key, value in layer.items()}
        sources = [table["source"] for table in (self.table, *reversed(layers)) if "source" in table]
        dataset = self.table["dataset"].format(task="" if task is None else f"-task{task}")
        return Preset(
            algorithm=algorithm,
            suite=self.suite,
            environment=self.name,
            task=task,
            default_task=default,
            values={"dataset": dataset} | {k: v for k, v in merged.items() if k not in _COMMENTS},
            sources=tuple(dict.fromkeys(sources)),
            notes=tuple(layer["notes"] for layer in layers if "notes" in layer),
            unsupported={key: value for layer in layers for key, value in layer.get("unsupported", {}).items()},
        )

    def _common_layers(self, algorithm: str) -> list[dict[str, Any]]:
        """Values for all algorithms, as far as this one has the fields, and values for this one in the whole suite."""
        known = {spec.name for config in _configs(algorithm) for spec in dataclasses.fields(config)} | set(_COMMENTS)
        layers = [self.common.get("all", {}), self.table.get("all", {})]
        return [
            *({key: value for key, value in layer.items() if key in known} for layer in layers),
            self.common.get(algorithm, {}),
        ]


def _own_layers(own: Mapping[str, Any], task: int | None) -> list[dict[str, Any]]:
    """Values of an algorithm's table for all tasks, and for one of them."""
    tasks = _task_tables(own)
    names = {f"task{number}" for number in tasks}
    return [{key: value for key, value in own.items() if key not in names}, tasks.get(task or 0, {})]


def _task_tables(own: Mapping[str, Any]) -> dict[int, Any]:
    """Number of a task -> its table inside the table of an algorithm."""
    return {int(key[4:]): value for key, value in own.items() if re.fullmatch(r"task\d+", key)}


def presets_folder() -> Traversable:
    """Folder of the preset files."""
    return files("flowpolicies") / "presets"


@cache
def read_suite(suite: str) -> tuple[EnvironmentPresets, ...]:
    """Presets of the environments of a suite, in the order of their files."""
    folder = presets_folder() / suite
    common = tomllib.loads((folder / "suite.toml").read_text())
    found: list[EnvironmentPresets] = []
    for file in sorted(folder.iterdir(), key=lambda path: path.name):
        name = Path(file.name).stem
        if not file.name.endswith(".toml") or name == "suite":
            continue
        table = tomllib.loads(file.read_text())
        found.append(EnvironmentPresets(suite, name, table, common))
        for other, changes in table.get("also", {}).items():
            found.append(EnvironmentPresets(suite, other, {**table, **changes}, common))
    return tuple(found)


def all_environments() -> Iterator[EnvironmentPresets]:
    """Presets of the environments of all suites."""
    for suite in SUITES:
        yield from read_suite(suite)


def split_task(name: str) -> tuple[str, int | None]:
    """Environment and task in the name of a preset or a dataset, such as ("antmaze-large-navigate", 3)."""
    name, _ = split_options(name)
    match = _TASK.search(name)
    key = _TASK.sub("", name)
    if "-singletask" in key:
        key = re.sub(r"-v\d+$", "", key.replace("-singletask", ""))
    return key, int(match[1]) if match else None


def plain_name(key: str) -> str:
    """A name without the suffixes "-sparse", of environments in papers, and "-100m", of large datasets."""
    return re.sub(r"-(sparse|100m)(?=$|-)", "", key)


def convert(hint: Any, value: Any, where: str) -> Any:
    """Converts a TOML value to the type of a field: integers to floats, arrays to tuples, texts to paths,
    and "none" to None.

    Args:
        hint: type of the field.
        value: value as `tomllib` reads it.
        where: name of the preset and the field, for the error message.

    Raises:
        ValueError: if the value does not have the type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value == "none" and type(None) in arguments:
            return None
        inner = [argument for argument in arguments if argument is not type(None)]
        return _first_that_fits(inner, value, where)
    if origin is Literal:
        fits = value in arguments
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(convert(arguments[0], item, where) for item in value)
        fits = False
    elif hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if fits else value
    elif hint is Path:
        fits = isinstance(value, str)
        value = Path(value) if fits else value
    elif hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    else:
        fits = isinstance(value, hint)
    if not fits:
        raise ValueError(f"preset {where} = {value!r} is not a {getattr(hint, '__name__', hint)}.")
    return value


def _first_that_fits(hints: Sequence[Any], value: Any, where: str) -> Any:
    """Converts a value to the first of several types that it fits."""
    for hint in hints[:-1]:
        try:
            return convert(hint, value, where)
        except ValueError:
            continue
    return convert(hints[-1], value, where)
