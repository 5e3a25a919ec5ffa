"""Logging to Weights & Biases, beside the files of the run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

CONFIG = ("algorithm", "env", "seed", "hyperparameters", "sb3_hyperparameters", "settings")
"""Keys of the record of a run that Weights & Biases gets."""


def open_wandb(project: str, folder: Path, record: Mapping[str, Any]) -> Any:
    """The run of Weights & Biases that belongs to a run folder; a run that is resumed continues the same one.

    Args:
        project: name of the project.
        folder: path of the run folder.
        record: record of the run.
    """
    import wandb

    began = record["parts"][0].get("began", "") if record.get("parts") else ""
    own_id = hashlib.sha256(f"{folder.resolve()} {began}".encode()).hexdigest()[:16]
    config = {key: record.get(key) for key in CONFIG}
    # One process may train several seeds, each of which is a run of its own.
    options = {"resume": "allow", "reinit": "create_new"}
    return wandb.init(project=project, id=own_id, name=folder.name, config=config, **options)


@final
class WandbWriter(KVWriter):
    """Output format of the logger for Weights & Biases. Each phase counts its own steps, in `offline/step`.

    Args:
        run: what `open_wandb` returns; it is not closed here, as the next phase writes to it too.
        phase: phase of training, which the names of the values begin with.
    """

    def __init__(self, run: Any, phase: str) -> None:
        self._run, self._phase = run, phase
        run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        values = filter_excluded_keys(key_values, key_excluded, "wandb")
        numbers = {key: float(value) for key, value in values.items() if hasattr(value, "__float__")}
        self._run.log({f"{self._phase}/step": step, **{f"{self._phase}/{key}": x for key, x in numbers.items()}})

    def close(self) -> None:
        """The run stays open until `TrainingRun.close`."""
