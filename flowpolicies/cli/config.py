"""The files of `flowpolicies train --config`: TOML with values of flags, such as the `run.toml` of a run."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flowpolicies.artifacts import ArtifactError, reading
from flowpolicies.messages import did_you_mean
from flowpolicies.reproduction.preset_files import Preset
from flowpolicies.shell.catalog import config_of
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training.repeating import SECTIONS
from flowpolicies.training.settings import TrainSettings


class ConfigFile(NamedTuple):
    """Content of a file of settings."""

    path: Path
    algorithm: str | None
    """Name of the algorithm; None if the file does not name it."""
    preset: str | None
    """Name of the preset below the values of the file; None: none."""
    values: Mapping[str, Any]
    """Fields of the algorithm's `Config`, `SB3Hyperparameters` and `TrainSettings`, with values as in the file."""

    def as_preset(self, algorithm: str, below: Preset | None) -> Preset:
        """The values of the file as defaults of flags.

        Args:
            algorithm: name of the algorithm.
            below: preset whose values count where the file has none.

        Raises:
            ArtifactError: for a key that is no field.
        """
        config = config_of(algorithm)
        renamed = {**config.renamed, **TrainSettings.renamed}
        values = {renamed.get(key, key): value for key, value in self.values.items()}
        parts: tuple[type[Any], ...] = (config, SB3Hyperparameters, TrainSettings)
        known = [field.name for part in parts for field in dataclasses.fields(part)]
        for key in values:
            if key not in known:
                raise ArtifactError(self.path, f"{algorithm} has no setting '{key}'.{did_you_mean(key, known)}")
        return Preset(
            algorithm=algorithm,
            suite=self.path.parent.as_posix(),
            environment=self.path.name,
            task=None,
            default_task=None,
            values={**({} if below is None else below.values), **values},
            sources=(),
        )


def read_config_file(path: Path) -> ConfigFile:
    """Reads a file of settings; its values may be in the tables of a `run.toml` or outside of them.

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if it is no TOML, or has other tables.
    """
    if not path.is_file():
        near = [other.name for other in path.parent.glob("*.toml")]
        raise FileNotFoundError(f"no configuration file '{path}'.{did_you_mean(path.name, near)}")
    with reading(path):
        content = tomllib.loads(path.read_text())
    values: dict[str, Any] = {}
    for key, value in content.items():
        if not isinstance(value, dict):
            values[key.replace("-", "_")] = value
        elif key in SECTIONS:
            values |= {name.replace("-", "_"): inner for name, inner in value.items()}
        else:
            raise ArtifactError(path, f"it has the table [{key}]; allowed are {', '.join(SECTIONS)}")
    names = {key: values.pop(key, None) for key in ("algorithm", "preset")}
    for key, name in names.items():
        if not isinstance(name, str | None):
            raise ArtifactError(path, f"{key!r} must be a name, got {name!r}")
    return ConfigFile(path, **names, values=values)


def with_algorithm(words: Sequence[str], config: str | None) -> list[str]:
    """The words of `flowpolicies train --config FILE ...`, with the algorithm of the file where the words name none.

    Args:
        words: the command line.
        config: path of the file; None: there is none.

    Raises:
        ValueError: if neither names an algorithm.
    """
    if config is None or list(words[:1]) != ["train"] or not words[1].startswith("-"):
        return list(words)
    file = read_config_file(Path(config))
    if file.algorithm is None:
        raise ValueError(f"'{config}' names no algorithm. Add algorithm = \"fql\" to it, or name one behind `train`.")
    return ["train", file.algorithm, *words[1:]]
