"""The numbers in the guides for choosing an algorithm and hyperparameters are those of the published tables."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowpolicies.reproduction import load_preset

ROOT = Path(__file__).parents[2]
GUIDES, PRESETS = ROOT / "docs" / "guides", ROOT / "flowpolicies" / "presets"
TABLES = tomllib.loads((PRESETS / "tables.toml").read_text())

ENVIRONMENTS = {
    "antmaze-large": ("antmaze-large-navigate",),
    "antmaze-giant": ("antmaze-giant-navigate",),
    "humanoidmaze-medium, -large": ("humanoidmaze-medium-navigate", "humanoidmaze-large-navigate"),
    "humanoidmaze-medium": ("humanoidmaze-medium-navigate",),
    "humanoidmaze-large": ("humanoidmaze-large-navigate",),
    "antsoccer-arena": ("antsoccer-arena-navigate",),
    "cube-single": ("cube-single-play",),
    "cube-double": ("cube-double-play",),
    "cube-triple": ("cube-triple-play",),
    "cube-quadruple": ("cube-quadruple-play",),
    "scene": ("scene-play",),
    "scene, sparse": ("scene-play",),
    "puzzle-3x3, -4x4": ("puzzle-3x3-play", "puzzle-4x4-play"),
    "puzzle-3x3, sparse": ("puzzle-3x3-play",),
    "puzzle-4x4, sparse": ("puzzle-4x4-play",),
}
FIELDS = {"lambda": "guidance_lambda"}


def tables(page: str) -> Iterator[list[dict[str, str]]]:
    """The rows of each table of a page, by the text of the head of each column; "" is the first one's."""
    for block in re.findall(r"(?:^\|.*\|\n)+", (GUIDES / page).read_text(), re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        yield [dict(zip(head, row, strict=True)) for row in rows]


def published(file: str) -> dict[tuple[str, str], float]:
    """(environment, method) -> mean of a published table."""
    with (PRESETS / "published" / file).open() as stream:
        return {(row["environment"], row["method"]): float(row["mean"]) for row in csv.DictReader(stream)}


@pytest.mark.parametrize(("place", "name"), [(0, "qflow-standard"), (1, "qflow-advanced"), (2, "qam-online")])
def test_success_of_algorithms(place: int, name: str) -> None:
    heads = [table for table in tables("choosing-algorithm.md") if "`fql`" in table[0]]
    found = [table for table in heads if table[0][""] == "antmaze-large"]
    methods = {f"`{algorithm}`": method for method, algorithm in TABLES[name]["columns"].items()}
    numbers = published(TABLES[name]["published"])
    for row in found[place]:
        environment, digits = row.pop("").strip("*"), 0
        if environment in ("average", "offline"):
            digits = 1
        source = published("qam_offline.csv") if environment == "offline" else numbers
        environment = environment if digits == 0 else "Average"
        for algorithm, shown in row.items():
            value = source.get((environment, methods[algorithm]))
            assert shown.strip("*") == ("-" if value is None else f"{value:.{digits}f}"), (environment, algorithm)


def values_of_presets(suite: str, table: list[dict[str, str]]) -> Iterator[tuple[str, str, str, str]]:
    """What a table shows, and the value of the preset, with the environment and the field."""
    for row in table:
        environments = ENVIRONMENTS[row.pop("")]
        for head, cell in row.items():
            algorithm, _, names = head.partition(": ")
            if cell == "" or cell.startswith("as ") or not names:
                continue
            for field, shown in zip(names.split(", "), cell.split(", "), strict=True):
                for environment in environments:
                    try:
                        values = load_preset(algorithm.strip("`"), f"{suite}/{environment}").values
                    except ValueError:  # Only some of the environments of the row have a preset.
                        assert len(environments) > 1
                        continue
                    yield environment, field, shown, f"{values[FIELDS.get(field, field)]:g}"


@pytest.mark.parametrize(("suite", "column"), [("ogbench", "`qflow`: lambda"), ("ogbench-advanced", "`qam`: inv_temp")])
def test_hyperparameters_by_domain(suite: str, column: str) -> None:
    (table,) = [table for table in tables("choosing-hyperparameters.md") if column in table[0]]
    compared = list(values_of_presets(suite, table))
    assert len(compared) > 20
    assert [entry for entry in compared if entry[2] != entry[3]] == []
