"""`run.toml`: the settings of a run as a file with which `flowpolicies train --config` trains the same run again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

if TYPE_CHECKING:
    from flowpolicies.algorithms import OfflineAlgorithm

SECTIONS = ("settings", "sb3_hyperparameters", "hyperparameters")
"""Tables of the file, which are parts of the record of a run."""

PLACE = ("run_dir", "resume", "overwrite")
"""Fields of `TrainSettings` that are not in the file, because a repeated run must not write to the same folder."""


def run_toml(algorithm: type[OfflineAlgorithm], record: Mapping[str, Any]) -> str:
    """Text of the `run.toml` of a run: every setting with its value, except the place of the run.

    Args:
        algorithm: class of the algorithm.
        record: record of the run, the content of `config.json`.
    """
    from flowpolicies.training.continuing import sections

    head: dict[str, Any] = {"algorithm": record["algorithm"]}
    if record.get("preset"):
        head["preset"] = record["preset"]["name"]
    classes = sections(algorithm)
    tables = {name: _table(record[name], classes[name]) for name in SECTIONS}
    comment = "# Trains the same run again: flowpolicies train --config run.toml --run-dir ANOTHER/FOLDER\n\n"
    return comment + tomli_w.dumps({**head, **tables}, multiline_strings=False)


def _table(values: Mapping[str, Any], config: type[Any]) -> dict[str, Any]:
    """The values in types of TOML, which has no None: it is "none", or left out where it is the default."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    kept = {name: value for name, value in values.items() if name not in PLACE and name in defaults}
    return {name: _plain(value) for name, value in kept.items() if value is not None or defaults[name] is not None}


def _plain(value: Any) -> Any:
    if value is None:
        return "none"
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
