"""Published tables, from `flowpolicies/presets/tables.toml` and `flowpolicies/presets/published`."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, final

from flowpolicies.messages import did_you_mean
from flowpolicies.reproduction.preset_files import SUITES, presets_folder
from flowpolicies.training.evaluations import Phase


class Cell(NamedTuple):
    """A published number."""

    mean: float
    std: float | None

    def __str__(self) -> str:
        return f"{self.mean:g}" if self.std is None else f"{self.mean:g}±{self.std:g}"


@final
@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A table of a paper; the keys of `flowpolicies/presets/tables.toml`."""

    name: str
    title: str
    rows: Mapping[str, str]
    """The table's name of a row, and its preset without or with a task."""
    columns: Mapping[str, str]
    """The table's name of a column, and its algorithm."""
    seeds: tuple[int, ...]
    phase: Phase
    last: Mapping[str, int]
    """How many of the last evaluations are averaged, by the suite of the run's preset."""
    options: Mapping[str, Any]
    published: Mapping[tuple[str, str], Cell]
    """Numbers by row and column; none if we do not have them."""
    notes: str


def load_table(name: str) -> PublishedTable:
    """A published table by name.

    Raises:
        ValueError: for an unknown name.
    """
    tables = _tables()
    if name not in tables:
        raise ValueError(f"unknown table '{name}' (known: {', '.join(tables)}).{did_you_mean(name, tables)}")
    entry = tables[name]
    rows = tables[entry["rows"]]["rows"] if isinstance(entry["rows"], str) else entry["rows"]
    return PublishedTable(
        name=name,
        title=entry["title"],
        rows=rows,
        columns=entry["columns"],
        seeds=tuple(entry["seeds"]),
        phase=entry["phase"],
        last=entry["last"] if isinstance(entry["last"], dict) else dict.fromkeys(SUITES, entry["last"]),
        options=entry.get("options", {}),
        published=_published(entry["published"]) if "published" in entry else {},
        notes=entry["notes"],
    )


def list_tables() -> dict[str, str]:
    """Names and titles."""
    return {name: entry["title"] for name, entry in _tables().items()}


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads((presets_folder() / "tables.toml").read_text())


def _published(file: str) -> dict[tuple[str, str], Cell]:
    lines = (presets_folder() / "published" / file).read_text().splitlines()
    return {
        (row, column): Cell(float(mean), float(std) if std else None)
        for row, column, mean, std in list(csv.reader(lines))[1:]
    }
