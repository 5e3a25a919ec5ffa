"""The files in `flowpolicies/presets`: one per environment of a suite.

A file's tables are algorithms, and hold what a paper or the authors' script gives, no more. What all environments of a
suite have in common is in its `suite.toml`. docs/presets.md describes both.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, final

from flowpolicies.algorithms import get_algorithm
from flowpolicies.data.sources import split_options
from flowpolicies.reproduction.values import convert
from flowpolicies.training.settings import Knobs, TrainSettings

SUITES = ("ogbench", "ogbench-pixels", "ogbench-advanced", "ogbench-online", "d4rl", "d4rl-online")
"""Folders of presets, in the order in which "auto" looks through them."""
_SAYINGS = ("source", "notes", "unsupported")  # Keys of a table that are no fields.
_TASK = re.compile(r"-task(\d+)(?=$|-)")


@final
@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of one algorithm in one environment."""

    algorithm: str
    """Its name."""
    suite: str
    """Folder of the file."""
    environment: str
    """Such as "antmaze-large-navigate"."""
    task: int | None
    """One of OGBench's five, or None where there are none."""
    default_task: int | None
    """The one that a dataset's name without a task means."""
    values: Mapping[str, Any]
    """Fields of `TrainSettings`, of `Knobs` and of the algorithm's `Config`, as the file has them."""
    sources: tuple[str, ...]
    """Papers, tables and scripts that the values come from."""
    notes: tuple[str, ...] = ()
    """What else they say, such as how the checkpoint was chosen."""
    unsupported: Mapping[str, Any] = field(default_factory=dict)
    """Published values that this package has no field for."""

    @property
    def name(self) -> str:
        """Such as "ogbench/antmaze-large-navigate-task3"."""
        return f"{self.suite}/{self.environment}" + ("" if self.task is None else f"-task{self.task}")

    @property
    def dataset(self) -> str:
        """Address of the data."""
        return str(self.values["dataset"])

    def fields_of(self, config: type[Any]) -> dict[str, Any]:
        """Those of the values that are fields of this dataclass, with the types that it says.

        Raises:
            ValueError: if a value has another type.
        """
        hints = typing.get_type_hints(config)
        names = [spec.name for spec in dataclasses.fields(config) if spec.name in self.values]
        return {name: convert(hints[name], self.values[name], f"{self.name}: {name}") for name in names}

    def fields(self) -> dict[str, Any]:
        """The values in their order, with the types of their fields."""
        found = {name: value for kind in _kinds(self.algorithm) for name, value in self.fields_of(kind).items()}
        return {name: found[name] for name in self.values}

    def describe(self) -> dict[str, Any]:
        """The record for `config.json`."""
        return {
            "name": self.name,
            "values": dict(self.values),
            "sources": list(self.sources),
            "notes": list(self.notes),
            "unsupported": dict(self.unsupported),
        }


def _kinds(algorithm: str) -> tuple[type[Any], ...]:
    """The dataclasses whose fields a preset may set."""
    return (get_algorithm(algorithm).Config, Knobs, TrainSettings)


@final
@dataclass(frozen=True)
class Environment:
    """An environment file, or an entry of its `also`, below its suite's file."""

    suite: str
    name: str
    table: Mapping[str, Any]
    common: Mapping[str, Any]

    def algorithms(self) -> list[str]:
        """Those with a table of their own."""
        only = self.table.get("algorithms")
        entries = {key: entry for key, entry in self.table.items() if isinstance(entry, dict)}
        names = [key for key, entry in entries.items() if key not in ("all", "also") and "same_as" not in entry]
        return [name for name in names if only is None or name in only]

    def same_as(self, algorithm: str) -> str | None:
        """The algorithm that the published runs of another one really are here."""
        entry = self.table.get(algorithm, {})
        return str(entry["same_as"]) if "same_as" in entry else None

    def tasks_of(self, algorithm: str) -> tuple[int | None, ...]:
        """All of the environment's, or those with tables of their own."""
        return self._tasks_of(self.table[algorithm])

    def _tasks_of(self, entry: Mapping[str, Any]) -> tuple[int | None, ...]:
        return tuple(_task_tables(entry)) or tuple(self.table.get("tasks", [None]))

    def answers_to(self, key: str) -> bool:
        """Names of a benchmark without version, and the papers' suffixes, are understood."""
        plain = plain_name(key)
        return plain == self.name or plain == re.sub(r"-v\d+$", "", self.name)

    def is_meant_by(self, address: str) -> bool:
        """Whether it is the environment of a dataset or environment of this name."""
        source, _, name = address.partition(":")
        return source == self.table["dataset"].partition(":")[0] and self.answers_to(split_task(name)[0])

    def preset(self, algorithm: str, task: int | None, *, only_common: bool = False) -> Preset:
        """What applies to an algorithm, the particular before the general."""
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
            values={"dataset": dataset} | {k: v for k, v in merged.items() if k not in _SAYINGS},
            sources=tuple(dict.fromkeys(sources)),
            notes=tuple(layer["notes"] for layer in layers if "notes" in layer),
            unsupported={key: value for layer in layers for key, value in layer.get("unsupported", {}).items()},
        )

    def _common_layers(self, algorithm: str) -> list[dict[str, Any]]:
        """What all algorithms have, as far as this one has the field, and what it has in the whole suite."""
        known = {spec.name for kind in _kinds(algorithm) for spec in dataclasses.fields(kind)} | set(_SAYINGS)
        layers = [self.common.get("all", {}), self.table.get("all", {})]
        return [
            *({key: value for key, value in layer.items() if key in known} for layer in layers),
            self.common.get(algorithm, {}),
        ]


def _own_layers(entry: Mapping[str, Any], task: int | None) -> list[dict[str, Any]]:
    """An algorithm's table of an environment, and that of a task in it."""
    tasks = _task_tables(entry)
    names = {f"task{number}" for number in tasks}
    return [{key: value for key, value in entry.items() if key not in names}, tasks.get(task or 0, {})]


def _task_tables(entry: Mapping[str, Any]) -> dict[int, Any]:
    return {int(key[4:]): value for key, value in entry.items() if re.fullmatch(r"task\d+", key)}


def presets_folder() -> Traversable:
    """Where the files are."""
    return files("flowpolicies") / "presets"


@cache
def read_suite(suite: str) -> tuple[Environment, ...]:
    """The environments of a suite, in the order of their files."""
    folder = presets_folder() / suite
    common = tomllib.loads((folder / "suite.toml").read_text())
    found: list[Environment] = []
    for file in sorted(folder.iterdir(), key=lambda path: path.name):
        name = Path(file.name).stem
        if not file.name.endswith(".toml") or name == "suite":
            continue
        table = tomllib.loads(file.read_text())
        found.append(Environment(suite, name, table, common))
        for other, changes in table.get("also", {}).items():
            found.append(Environment(suite, other, {**table, **changes}, common))
    return tuple(found)


def all_environments() -> Iterator[Environment]:
    """Those of every suite."""
    for suite in SUITES:
        yield from read_suite(suite)


def split_task(name: str) -> tuple[str, int | None]:
    """Environment and task in a preset's or a dataset's name, such as ("antmaze-large-navigate", 3)."""
    name, _ = split_options(name)
    match = _TASK.search(name)
    key = _TASK.sub("", name)
    if "-singletask" in key:
        key = re.sub(r"-v\d+$", "", key.replace("-singletask", ""))
    return key, int(match[1]) if match else None


def plain_name(key: str) -> str:
    """Without what a suite says about its data: the papers call these environments "-sparse" and their data "-100m"."""
    return re.sub(r"-(sparse|100m)(?=$|-)", "", key)
