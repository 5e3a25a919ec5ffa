"""Published tables of results, read from `flowpolicies/presets/tables.toml` and `flowpolicies/presets/published`."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, final

from flowpolicies.messages import did_you_mean
from flowpolicies.moved import moved_names
from flowpolicies.reproduction.preset_files import SUITES, presets_folder
from flowpolicies.training.evaluations import Phase


class PublishedScore(NamedTuple):
    """A number of a published table."""

    mean: float
    """Mean over seeds, and over tasks where a row has several."""
    std: float | None
    """Standard deviation over seeds; None if it is not published."""

    def __str__(self) -> str:
        return f"{self.mean:g}" if self.std is None else f"{self.mean:g}±{self.std:g}"


@final
@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A published table; the fields are the keys of `flowpolicies/presets/tables.toml`."""

    name: str
    """Name of the table on the command line."""
    title: str
    """Paper, benchmark and unit of the numbers."""
    rows: Mapping[str, str]
    """Name of each row -> name of its preset; without a task, the row is the mean over all tasks of the preset."""
    columns: Mapping[str, str]
    """Name of each column -> name of its algorithm."""
    seeds: tuple[int, ...]
    """Seeds of the runs."""
    phase: Phase | Literal["end"]
    """Evaluations that count: those of one phase, or those of the phase in which a run ends."""
    last: Mapping[str, int]
    """Suite of a run's preset -> number of last evaluations that are averaged."""
    options: Mapping[str, Any]
    """Fields that all runs get in addition to their presets."""
    published: Mapping[tuple[str, str], PublishedScore]
    """Published number of each pair (row, column); empty if this project does not have the numbers."""
    notes: str
    """What a reader must know to compare the numbers."""


def load_table(name: str) -> PublishedTable:
    """Reads a published table.

    Raises:
        ValueError: for an unknown name.
    """
    tables = _tables()
    if name == "local":
        raise ValueError("the local benchmark is a command of its own: `flowpolicies reproduce table local --dry-run`.")
    if name not in tables:
        raise ValueError(f"unknown table '{name}' (known: {', '.join(tables)}).{did_you_mean(name, tables)}")
    values = tables[name]
    rows = tables[values["rows"]]["rows"] if isinstance(values["rows"], str) else values["rows"]
    return PublishedTable(
        name=name,
        title=values["title"],
        rows=rows,
        columns=values["columns"],
        seeds=tuple(values["seeds"]),
        phase=values["phase"],
        last=values["last"] if isinstance(values["last"], dict) else dict.fromkeys(SUITES, values["last"]),
        options=values.get("options", {}),
        published=_published(values["published"]) if "published" in values else {},
        notes=values["notes"],
    )


def list_tables() -> dict[str, str]:
    """Names of the published tables -> their titles."""
    return {name: values["title"] for name, values in _tables().items()}


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads((presets_folder() / "tables.toml").read_text())


def _published(file: str) -> dict[tuple[str, str], PublishedScore]:
    lines = (presets_folder() / "published" / file).read_text().splitlines()
    return {
        (row, column): PublishedScore(float(mean), float(std) if std else None)
        for row, column, mean, std in list(csv.reader(lines))[1:]
    }


__getattr__ = moved_names(__name__, {"Cell": "flowpolicies.reproduction.published:PublishedScore"})
