"""The folder of a training run, and its files."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from flowpolicies.artifacts import ArtifactError, parse_json, reading
from flowpolicies.files import LEFTOVER, discard, discard_leftovers, write_json
from flowpolicies.locks import FolderLock
from flowpolicies.training.checkpoints import (
    Manifest,
    Part,
    list_checkpoints,
    problem_of,
    read_manifest,
    remove,
    set_aside,
    sweep,
    write_checkpoint,
    write_manifest,
)
from flowpolicies.training.evaluations import (
    EvaluationRow,
    Phase,
    append_evaluation,
    parse_evaluation,
    read_evaluations,
    write_evaluations,
)
from flowpolicies.training.logs import (
    LogFiles,
    LogState,
    mend_table,
    read_table,
    rewind_logs,
    state_of_logs,
    write_table,
)

if TYPE_CHECKING:  # What is in a folder is known without importing them.
    from stable_baselines3.common.logger import KVWriter, Logger

    from flowpolicies.algorithms import OfflineAlgorithm

STEP_COLUMNS: dict[Phase, str] = {"offline": "time/offline_steps", "online": "time/total_timesteps"}
"""Phase -> column of `progress.csv` that counts its steps. A row has a value in the column of its own phase only."""

RECORD = {
    "algorithm": str,
    "hyperparameters": dict,
    "sb3_hyperparameters": dict,
    "env": str | None,
    "seed": int,
    "dataset": dict,
    "settings": dict,
    "commands": list,
}
"""Types of the entries of `config.json` that are read again."""


def notice(text: str) -> None:
    """Prints a line to standard error."""
    print(text, file=sys.stderr, flush=True)


@final
@dataclass(frozen=True)
class RunFolder:
    """Paths of the files of a run, and functions that write those that must survive a crash.

    Examples:
        >>> from pathlib import Path
        >>> from flowpolicies.training import RunFolder
        >>> RunFolder(Path("runs/mine")).policy.name
        'policy.safetensors'
    """

    path: Path
    """Path of the folder, which need not exist yet."""

    @property
    def config(self) -> Path:
        """JSON file with all that is needed to repeat the run."""
        return self.path / "config.json"

    @property
    def toml(self) -> Path:
        """TOML file with which `flowpolicies train --config` trains the same run again."""
        return self.path / "run.toml"

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
    def best(self) -> Path:
        """The model with the best value of `TrainSettings.keep_best`; `best.json` beside it says which one."""
        return self.path / "best.zip"

    @property
    def events(self) -> Path:
        """Folder of the event files of TensorBoard, with a folder for each phase."""
        return self.path / "tensorboard"

    @property
    def logs(self) -> LogFiles:
        """Paths of all logs."""
        return LogFiles(self.progress, self.evaluations, self.events)

    @property
    def plot(self) -> Path:
        """Figure of the learning curve."""
        return self.path / "learning_curve.png"

    def lock(self) -> FolderLock:
        """Context manager that keeps other processes from writing to the folder."""
        return FolderLock(self.path / ".lock", notice)

    def check_free(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Raises an error if the folder is not free, unless it holds a run that is to be continued or replaced.

        A folder is free if it is missing, empty, or holds only what a process that was killed leaves behind.

        Raises:
            ValueError: if both `resume` and `overwrite` are set.
            FileExistsError: if the folder holds a run and neither is set, or if it holds other files.
            ArtifactError: if a file that is to be written or deleted is a symbolic link, or is behind one.
        """
        if resume and overwrite:
            raise ValueError("--resume continues a run and --overwrite deletes it: pass only one of them.")
        if not self.path.is_dir():
            if self.path.exists():
                raise FileExistsError(f"'{self.path}' is a file, not a folder. Choose another one with --run-dir.")
            return
        self._check_links()
        if self.config.is_file():
            if not (resume or overwrite):
                raise FileExistsError(
                    f"'{self.path}' holds a run already. Continue it with --resume, replace it with --overwrite, or "
                    "choose another folder with --run-dir."
                )
            return
        entries = [entry for entry in self.path.iterdir() if not self._is_leftover(entry)]
        if not entries or (overwrite and all(self._is_ours(entry) for entry in entries)):
            return
        if all(self._is_ours(entry) for entry in entries):
            raise FileExistsError(
                f"'{self.path}' holds the rest of a run whose {self.config.name} is missing, so it cannot be "
                "continued. Replace it with --overwrite, or choose another folder with --run-dir."
            )
        raise FileExistsError(
            f"'{self.path}' exists and is not the folder of a run. Choose another one with --run-dir."
        )

    def _check_links(self) -> None:
        """Raises an ArtifactError for a link by which a run would change files outside of its folder."""
        inner = (entry for folder in self._folders if folder.is_dir() for entry in folder.rglob("*"))
        for entry in (*self._folders, *self._files, self.lock().path, *inner):
            if entry.is_symlink():
                raise ArtifactError(
                    entry,
                    "it is a symbolic link, and a run only writes to its own folder",
                    hint="Replace it by what it points to, or choose another folder with --run-dir.",
                )

    def _is_leftover(self, entry: Path) -> bool:
        """Whether a kill can have left an entry of the folder in a run that has written nothing."""
        if entry.is_dir() and entry in self._folders:
            return all(inner.is_dir() or LEFTOVER.fullmatch(inner.name) for inner in entry.rglob("*"))
        return entry.name.startswith(".lock") or LEFTOVER.fullmatch(entry.name) is not None

    def _is_ours(self, entry: Path) -> bool:
        """Whether an entry of the folder is one that a run writes."""
        if entry == self.checkpoints:
            return all(re.match(r"\.?step_\d+", inner.name) for inner in entry.iterdir())
        return entry in (*self._folders, *self._files)

    @property
    def _folders(self) -> Sequence[Path]:
        return self.checkpoints, self.events

    @property
    def _files(self) -> Sequence[Path]:
        best = (self.best, self.best.with_suffix(".json"))
        return self.progress, self.evaluations, self.policy, self.model, *best, self.plot, self.toml, self.config

    def clear(self) -> None:
        """Deletes the files of a run, and no others.

        The checkpoints go first and `config.json` last, each in one step, so that the folder is one of a run until it
        is free. A kill between them leaves a run without checkpoints, which begins anew.
        """
        for entry in (*self._folders, *self._files):
            discard(entry)
        discard_leftovers(self.path)

    def write_config(self, record: dict[str, Any]) -> None:
        """Writes `config.json` atomically, and creates the folder if it does not exist."""
        write_json(self.config, record)

    def read_config(self) -> dict[str, Any]:
        """Reads `config.json`.

        Raises:
            FileNotFoundError: if this is not the folder of a run.
            ArtifactError: if the file is damaged.
        """
        if not self.config.is_file():
            raise FileNotFoundError(f"'{self.path}' is not the folder of a run: it has no {self.config.name}.")
        record = parse_json(self.config.read_bytes(), self.config)
        if not isinstance(record, dict):
            raise ArtifactError(self.config, "it does not hold the record of a run", hint="The file is damaged.")
        if "knobs" in record:  # The name of this part in runs of version 0.1.0.
            record["sb3_hyperparameters"] = record.pop("knobs")
        for name, kind in RECORD.items():
            if name in record and not isinstance(record[name], kind):
                raise ArtifactError(
                    self.config, f"it is {record[name]!r:.80}, which cannot be", place=name, hint="The file is damaged."
                )
        return record

    def save_checkpoint(
        self,
        model: OfflineAlgorithm,
        keep: int = 2,
        *,
        replay_buffer: bool = False,
        open_log: LogState | None = None,
    ) -> Path:
        """Writes the model as `step_*.zip`, named by the sum of offline and online steps.

        Args:
            keep: number of newest checkpoints that are not deleted.
            replay_buffer: also write the online transitions, so that online training can continue from this
                checkpoint. They are large, and kept with each checkpoint.
            open_log: see `Manifest`.

        Raises:
            ValueError: if `keep` is less than 1.
            NoSpaceError: if there is no space; the earlier checkpoints are still there.
        """
        from flowpolicies.training.exact import checkpoints as exact

        if keep < 1:
            raise ValueError(f"keep is the number of checkpoints and must be at least 1, got {keep}")
        path = self.checkpoint_of(model)
        parts: dict[str, Part] = {".buffer.pkl": model.save_replay_buffer} if replay_buffer else {}  # type: ignore[dict-item]
        parts |= exact.state_parts(model)
        steps = {"offline": model.offline_steps, "online": model.num_timesteps}
        write_checkpoint(path, model.save, parts, Manifest({}, steps, self.state_of_logs(model), open_log))
        self.prune(keep)
        return path

    def prune(self, keep: int) -> None:
        """Deletes all checkpoints but the newest ones."""
        for other in self.list_checkpoints()[:-keep]:
            remove(other)

    def checkpoint_of(self, model: OfflineAlgorithm) -> Path:
        """Path of the checkpoint of a model at its present step, whether it exists or not."""
        return self.checkpoints / f"step_{model.offline_steps + model.num_timesteps:09d}.zip"

    @staticmethod
    def buffer_of(checkpoint: Path) -> Path:
        """Path of the online transitions of a checkpoint; the file exists if they were saved."""
        return checkpoint.with_suffix(".buffer.pkl")

    def list_checkpoints(self) -> list[Path]:
        """Complete checkpoints, the oldest first; they may have been damaged since they were written."""
        return list_checkpoints(self.checkpoints)

    def latest(self) -> Path | None:
        """The newest checkpoint, which may be damaged; None if there is none."""
        return next(reversed(self.list_checkpoints()), None)

    def newest_whole(self, *, repair: bool = False) -> Path | None:
        """The newest checkpoint that is not damaged; None if the run has no checkpoint at all.

        A line on standard error says which checkpoints are damaged.

        Args:
            repair: rename the damaged ones, so that the run can continue from the one that is returned.

        Raises:
            ArtifactError: if all checkpoints are damaged, or a newer version of flowpolicies wrote them.
        """
        damaged: dict[Path, str] = {}
        for checkpoint in reversed(self.list_checkpoints()):
            if not (problem := problem_of(checkpoint)):
                for other, reason in damaged.items():
                    aside = f" It is kept as {other.name}.damaged." if repair else ""
                    notice(f"The checkpoint '{other}' is damaged: {reason}. Using {checkpoint.name} instead.{aside}")
                    if repair:
                        set_aside(other)
                return checkpoint
            damaged[checkpoint] = problem
        if damaged:
            raise ArtifactError(
                self.checkpoints,
                "; ".join(f"{path.name}: {reason}" for path, reason in damaged.items()),
                hint="No checkpoint of the run is whole. Restore one from a backup, or start the run again with "
                "--overwrite.",
            )
        return None

    def tidy(self) -> None:
        """Deletes what processes that were killed have left, and cuts off unfinished rows of the logs.

        Raises:
            ArtifactError: if a row in the middle of a log is damaged.
        """
        discard_leftovers(self.path)
        sweep(self.checkpoints)
        for path, check in ((self.progress, tuple), (self.evaluations, parse_evaluation)):
            if mend_table(path, check):
                notice(f"The last row of '{path}' was not finished when the run was stopped; it is cut off.")

    def state_of_logs(self, model: OfflineAlgorithm) -> LogState:
        """Where the logs are now, for a checkpoint of the model."""
        return state_of_logs(self.logs, model._means, model.__dict__.get("_logger"))

    def note_logs(self, model: OfflineAlgorithm) -> None:
        """Notes in the checkpoint of the model's present step, if there is one, what was logged since."""
        path = self.checkpoint_of(model)
        manifest = read_manifest(path) if path.is_file() else None
        if manifest is not None:
            write_manifest(path, manifest._replace(log=self.state_of_logs(model)))

    def add_evaluation(self, row: EvaluationRow) -> None:
        """Appends a row to `evaluations.csv`."""
        self.path.mkdir(parents=True, exist_ok=True)
        append_evaluation(self.evaluations, row)

    def read_evaluations(self) -> list[EvaluationRow]:
        """Rows of `evaluations.csv`; empty if the file does not exist.

        Raises:
            ArtifactError: if the file is damaged.
        """
        return read_evaluations(self.evaluations)

    def rewind(self, offline_steps: int, online_steps: int, log: LogState | None = None) -> None:
        """Deletes what was logged after a checkpoint, because the continued run will log it again.

        Args:
            log: where the logs were at the checkpoint; None: rows are deleted by their steps, as for checkpoints of
                version 0.1.0, and events of TensorBoard stay.
        """
        if log is not None:
            rewind_logs(self.logs, log)
            return
        last = {"offline": offline_steps, "online": online_steps}
        if rows := self.read_evaluations():
            write_evaluations(self.evaluations, [row for row in rows if row.step <= last[row.phase]])
        columns, rows_of_log, _ = read_table(self.progress)
        if rows_of_log:
            with reading(self.progress):
                kept = [row for row in rows_of_log if _is_within(dict(zip(columns, row, strict=True)), last)]
            write_table(self.progress, columns, kept)

    def logger(
        self, phase: Phase, *, print_tables: bool = False, tensorboard: bool = True, more: Sequence[KVWriter] = ()
    ) -> Logger:
        """Logger that appends to `progress.csv`, and writes to further formats and to `tensorboard/PHASE`, since both
        phases count their steps from zero."""
        from flowpolicies.training.logs.writers import make_logger

        events = self.events / phase if tensorboard else None
        return make_logger(self.path, self.progress, events, print_tables=print_tables, more=more)


def _is_within(row: dict[str, str], last: dict[str, int]) -> bool:
    steps = ((phase, row.get(column)) for phase, column in STEP_COLUMNS.items())
    return all(not step or int(step) <= last[phase] for phase, step in steps)
