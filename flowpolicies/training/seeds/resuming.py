"""Where runs that are trained together continue: at one checkpoint of all of them, if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flowpolicies.training.checkpoints import problem_of, remove
from flowpolicies.training.runs import RunFolder
from flowpolicies.training.settings import TrainSettings


class Start(NamedTuple):
    """A checkpoint of a run, or its beginning."""

    checkpoint: Path | None
    """The checkpoint; None: the run begins."""
    step: int
    """Number of its steps."""


def common_starts(folders: Sequence[RunFolder], settings: TrainSettings) -> list[Start]:
    """The checkpoint that each run continues from.

    A kill while checkpoints were being written leaves some runs one checkpoint ahead. These go back to the one that all
    have, so that again all are updated together, and the result is the same to the last bit. Runs that have ended, or
    have not begun, do not count. If there is no such checkpoint within one interval (`checkpoint_every`), each run
    continues from its own newest one, and those behind catch up first.

    Raises:
        ArtifactError: if all checkpoints of a run are damaged.
    """
    newest = {folder: _newest(folder) for folder in folders}
    running = {
        folder: start
        for folder, start in newest.items()
        if folder.config.is_file() and not (folder.model.is_file() and start.step >= settings.steps)
    }
    step = min((start.step for start in running.values()), default=0)
    ahead = [folder for folder, start in running.items() if start.step > step]
    if all(newest[folder].step - step <= settings.checkpoint_every and _can_go_back(folder, step) for folder in ahead):
        for folder in ahead:
            for checkpoint in folder.list_checkpoints():
                if _step(checkpoint) > step:
                    remove(checkpoint)
            newest[folder] = _newest(folder)
    return [newest[folder] for folder in folders]


def _newest(folder: RunFolder) -> Start:
    checkpoint = folder.newest_whole(repair=True) if folder.config.is_file() else None
    return Start(None, 0) if checkpoint is None else Start(checkpoint, _step(checkpoint))


def _can_go_back(folder: RunFolder, step: int) -> bool:
    found = [checkpoint for checkpoint in folder.list_checkpoints() if _step(checkpoint) == step]
    return step == 0 or any(not problem_of(checkpoint) for checkpoint in found)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step_"))
