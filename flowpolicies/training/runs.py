"""The folder of a training run, and its files."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from stable_baselines3.common.logger import CSVOutputFormat, KVWriter, Logger, make_output_format

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.files import atomic_write, csv_text, write_json
from flowpolicies.training.evaluations import (
    EvaluationRow,
    Phase,
    append_evaluation,
    read_evaluations,
    write_evaluations,
)

STEP_COLUMNS: dict[Phase, str] = {"offline": "time/offline_steps", "online": "time/total_timesteps"}
"""Phase -> column of `progress.csv` that counts its steps. A row has a value in the column of its own phase only."""


@final
@dataclass(frozen=True)
class RunFolder:
    """Paths of the files of a run, and functions that write those that must survive a crash."""

    path: Path
    """Path of the folder, which need not exist yet."""

    @property
    def config(self) -> Path:
        """JSON file with all that is needed to repeat the run."""
        return self.path / "config.json"

    @property
    def progress(self) -> Path:
        """CSV file with losses and other numbers over the steps, written by Stable-Baselines3's logger."""
        return self.path / "progress.csv"

    @property
    def evaluations(self) -> Path:
        """CSV file with a row for each evaluation; see `EvaluationRow`."""
        return self.path / "evaluations.csv"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, `step_*.zip`."""
        return self.path / "checkpoints"

    @property
    def policy(self) -> Path:
        """Policy file without the training state; see `FlowPolicy.load`."""
        return self.path / "policy.safetensors"

    @property
    def model(self) -> Path:
        """The model at the end of the run with its training state; see `OfflineAlgorithm.load`."""
        return self.path / "model.zip"

    @property
    def plot(self) -> Path:
        """Figure of the learning curve."""
        return self.path / "learning_curve.png"

    def check_free(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Raises an error if the folder is not empty, unless it holds a run that is to be continued or replaced.

        Raises:
            ValueError: if both `resume` and `overwrite` are set.
            FileExistsError: if the folder holds a run and neither is set, or if it holds other files.
        """
        if resume and overwrite:
            raise ValueError("--resume continues a run and --overwrite deletes it: pass only one of them.")
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        if not self.config.is_file():
            raise FileExistsError(
                f"'{self.path}' exists and is not the folder of a run. Choose another one with --run-dir."
            )
        if not (resume or overwrite):
            raise FileExistsError(
                f"'{self.path}' holds a run already. Continue it with --resume, replace it with --overwrite, or "
                "choose another folder with --run-dir."
            )

    def clear(self) -> None:
        """Deletes the files of a run, and no others."""
        for file in (self.config, self.progress, self.evaluations, self.policy, self.model, self.plot):
            file.unlink(missing_ok=True)
        for folder in (self.checkpoints, self.path / "tensorboard"):
            shutil.rmtree(folder, ignore_errors=True)

    def write_config(self, record: dict[str, Any]) -> None:
        """Writes `config.json` atomically, and creates the folder if it does not exist."""
        write_json(self.config, record)

    def read_config(self) -> dict[str, Any]:
        """Reads `config.json`.

        Raises:
            FileNotFoundError: if this is not the folder of a run.
        """
        if not self.config.is_file():
            raise FileNotFoundError(f"'{self.path}' is not the folder of a run: it has no {self.config.name}.")
        record: dict[str, Any] = json.loads(self.config.read_text())
        if "knobs" in record:  # The name of this part in runs of version 0.1.0.
            record["sb3_hyperparameters"] = record.pop("knobs")
        return record

    def save_checkpoint(self, model: OfflineAlgorithm, keep: int = 2, *, replay_buffer: bool = False) -> Path:
        """Writes the model as `step_*.zip`, named by the sum of offline and online steps.

        Args:
            keep: number of newest checkpoints that are not deleted.
            replay_buffer: also write the online transitions. They are large, so only those of the newest checkpoint are
                kept.

        Raises:
            ValueError: if `keep` is less than 1.
        """
        if keep < 1:
            raise ValueError(f"keep is the number of checkpoints and must be at least 1, got {keep}")
        path = self.checkpoints / f"step_{model.offline_steps + model.num_timesteps:09d}.zip"
        if replay_buffer:  # Written before the checkpoint, so that no checkpoint lacks its transitions.
            with atomic_write(self.buffer_of(path)) as file:
                model.save_replay_buffer(file)  # type: ignore[arg-type]
        with atomic_write(path) as file:
            model.save(file)
        older = [other for other in self.list_checkpoints() if other != path]
        for other in older:
            self.buffer_of(other).unlink(missing_ok=True)
        for other in older[: max(0, len(older) + 1 - keep)]:
            other.unlink(missing_ok=True)
        return path

    @staticmethod
    def buffer_of(checkpoint: Path) -> Path:
        """Path of the online transitions of a checkpoint; the file exists if they were saved."""
        return checkpoint.with_suffix(".buffer.pkl")

    def list_checkpoints(self) -> list[Path]:
        """Complete checkpoints, the oldest first."""
        return sorted(self.checkpoints.glob("step_*.zip"))

    def latest(self) -> Path | None:
        """The newest checkpoint; None if there is none."""
        return next(reversed(self.list_checkpoints()), None)

    def add_evaluation(self, row: EvaluationRow) -> None:
        """Appends a row to `evaluations.csv`."""
        self.path.mkdir(parents=True, exist_ok=True)
        append_evaluation(self.evaluations, row)

    def read_evaluations(self) -> list[EvaluationRow]:
        """Rows of `evaluations.csv`; empty if the file does not exist."""
        return read_evaluations(self.evaluations)

    def rewind(self, offline_steps: int, online_steps: int) -> None:
        """Deletes the rows after a checkpoint, because the continued run will write them again."""
        last = {"offline": offline_steps, "online": online_steps}
        if rows := self.read_evaluations():
            write_evaluations(self.evaluations, [row for row in rows if row.step <= last[row.phase]])
        if self.progress.is_file():
            _rewind_progress(self.progress, last)

    def logger(self, phase: Phase, *, print_tables: bool = False) -> Logger:
        """Logger of Stable-Baselines3 that appends to `progress.csv` and writes to `tensorboard/PHASE`.

        Both phases count their steps from zero, so each has its own folder for TensorBoard.
        """
        formats: list[KVWriter] = [_continue_csv(self.progress)]
        formats.append(make_output_format("tensorboard", str(self.path / "tensorboard" / phase)))
        if print_tables:
            formats.append(make_output_format("stdout", str(self.path)))
        return Logger(str(self.path), formats)


def _continue_csv(path: Path) -> CSVOutputFormat:
    """CSV writer of Stable-Baselines3 that appends to a file; by itself it would empty the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = CSVOutputFormat(os.devnull)
    writer.file.close()
    path.touch()
    writer.file = open(path, "r+")  # noqa: SIM115  # The writer closes it.
    writer.keys = next(csv.reader(writer.file), [])
    writer.file.seek(0, os.SEEK_END)
    return writer


def _rewind_progress(path: Path, last: dict[str, int]) -> None:
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if _is_within(row, last)]
    with atomic_write(path) as target:
        target.write(csv_text([reader.fieldnames or (), *(row.values() for row in rows)]).encode())


def _is_within(row: dict[str, str], last: dict[str, int]) -> bool:
    steps = ((phase, row.get(column)) for phase, column in STEP_COLUMNS.items())
    return all(not step or int(step) <= last[phase] for phase, step in steps)
