from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from flowpolicies.algorithms import FQL
from flowpolicies.training import EvaluationRow, RunFolder
from flowpolicies.training.runs import STEP_COLUMNS


def names(folder: RunFolder) -> list[str]:
    """Files of the checkpoints, without their manifests."""
    return sorted(path.name for path in folder.checkpoints.iterdir() if path.suffix != ".json")


def test_the_newest_checkpoints_stay(folder: RunFolder, make_model: Any) -> None:
    model = make_model()
    assert folder.latest() is None
    for steps in (5, 10, 15):
        model.offline_steps = steps
        folder.save_checkpoint(model, keep=2)
    assert names(folder) == ["step_000000010.zip", "step_000000015.zip"]
    assert folder.latest() == folder.checkpoints / "step_000000015.zip"
    folder.save_checkpoint(model, keep=2)  # The same step again.
    assert names(folder) == ["step_000000010.zip", "step_000000015.zip"]
    with pytest.raises(ValueError, match="keep is the number of checkpoints and must be at least 1, got 0"):
        folder.save_checkpoint(model, keep=0)


def test_transitions_lie_beside_every_checkpoint_that_is_kept(folder: RunFolder, make_model: Any) -> None:
    model = make_model(buffer_size=50)
    for steps in (5, 10, 15):
        model.num_timesteps = steps
        folder.save_checkpoint(model, keep=2, replay_buffer=True)
    kept = [f"step_0000000{step}{ending}" for step in (10, 15) for ending in (".buffer.pkl", ".zip")]
    assert names(folder) == kept
    assert {path.stem for path in folder.checkpoints.glob("*.json")} == {"step_000000010", "step_000000015"}


@pytest.mark.parametrize("part", ["save", "save_replay_buffer"])
def test_a_save_that_fails_half_way_costs_nothing(
    folder: RunFolder, make_model: Any, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    model = make_model(buffer_size=50)
    model.num_timesteps = 5
    before = folder.save_checkpoint(model, keep=1, replay_buffer=True)
    content = before.read_bytes()

    def fail(self: FQL, file: Any) -> None:
        file.write(b"PK half a zip")
        raise OSError("disk full")

    monkeypatch.setattr(FQL, part, fail)
    model.num_timesteps = 10
    with pytest.raises(OSError, match="disk full"):
        folder.save_checkpoint(model, keep=1, replay_buffer=True)
    assert folder.latest() == before
    assert before.read_bytes() == content
    assert folder.buffer_of(before).is_file()
    assert not [name for name in names(folder) if name.endswith(".tmp")]


def test_what_a_kill_leaves_half_written_is_not_a_checkpoint(folder: RunFolder, make_model: Any) -> None:
    model = make_model()
    path = folder.save_checkpoint(model)
    (folder.checkpoints / ".step_000000099.zip.0123abcd.tmp").write_bytes(b"PK half a zip")
    assert folder.latest() == path


def test_a_folder_with_a_run_is_not_touched_unasked(folder: RunFolder) -> None:
    folder.check_free()
    folder.path.mkdir()
    folder.check_free()
    folder.write_config({"algorithm": "fql"})
    with pytest.raises(FileExistsError, match=r"run' holds a run already\. Continue it with --resume, replace it with"):
        folder.check_free()
    folder.check_free(resume=True)
    folder.check_free(overwrite=True)
    with pytest.raises(ValueError, match="pass only one of them"):
        folder.check_free(resume=True, overwrite=True)


def test_a_folder_of_something_else_is_never_overwritten(folder: RunFolder) -> None:
    folder.path.mkdir()
    (folder.path / "thesis.tex").touch()
    for wish in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(FileExistsError, match=r"exists and is not the folder of a run\. Choose another one with"):
            folder.check_free(**wish)


def test_clearing_removes_what_a_run_wrote_and_nothing_else(folder: RunFolder, make_model: Any) -> None:
    folder.write_config({})
    folder.save_checkpoint(make_model())
    folder.logger("offline").close()
    (folder.path / "notes.txt").touch()
    folder.clear()
    assert [path.name for path in folder.path.iterdir()] == ["notes.txt"]


def test_the_config_of_another_folder_is_missed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is not the folder of a run: it has no config\.json"):
        RunFolder(tmp_path).read_config()


def log(folder: RunFolder, phase: Any, step: int, **values: float) -> None:
    logger = folder.logger(phase)
    for key, value in {STEP_COLUMNS[phase]: step, **values}.items():
        logger.record(key, value)
    logger.dump(step)
    logger.close()


def progress(folder: RunFolder) -> list[dict[str, str]]:
    with open(folder.progress, newline="") as file:
        return list(csv.DictReader(file))


def test_the_log_is_continued_by_the_next_logger_with_new_columns(folder: RunFolder) -> None:
    log(folder, "offline", 5, loss=1.5)
    log(folder, "offline", 10, loss=2.5, success=0.5)
    log(folder, "online", 3, loss=3.5)
    rows = progress(folder)
    assert [row["loss"] for row in rows] == ["1.5", "2.5", "3.5"]
    assert [row["success"] for row in rows] == ["", "0.5", ""]
    assert [row["time/offline_steps"] for row in rows] == ["5", "10", ""]
    assert len(list((folder.path / "tensorboard" / "offline").iterdir())) == 2


def test_rewinding_drops_what_came_after(folder: RunFolder) -> None:
    row = EvaluationRow("offline", 5, 2, 0.5, 0.1, 0.9, -1.5, -2.0, -1.0, 8.0)
    for phase, step in (("offline", 5), ("offline", 10), ("online", 3), ("online", 6)):
        log(folder, phase, step, loss=step)
        folder.add_evaluation(row._replace(phase=phase, step=step))
    folder.rewind(10, 3)
    assert [r.step for r in folder.read_evaluations()] == [5, 10, 3]
    assert [r["loss"] for r in progress(folder)] == ["5", "10", "3"]
    log(folder, "online", 4, loss=4)
    folder.rewind(5, 0)
    assert [r.step for r in folder.read_evaluations()] == [5]
    assert [r["loss"] for r in progress(folder)] == ["5"]
