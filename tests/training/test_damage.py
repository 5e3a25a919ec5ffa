"""Damaged checkpoints and logs, full disks, and the permissions of files."""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
from processes import Copy
from same_runs import OFFLINE, assert_same_runs, damage, leftovers, rows

from flowpolicies.algorithms import FQL
from flowpolicies.artifacts import ArtifactError
from flowpolicies.files import NoSpaceError, append_text
from flowpolicies.training import (
    ProgressCallback,
    RunFolder,
    load_checkpoint,
    load_policy,
)


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty"])
@pytest.mark.parametrize("part", [".zip", ".json"])
def test_a_damaged_newest_checkpoint_is_replaced_by_the_one_before(
    run: Any,
    folder: RunFolder,
    undisturbed: RunFolder,
    capsys: pytest.CaptureFixture[str],
    part: str,
    how: str,
) -> None:
    shutil.copytree(undisturbed.path, folder.path)
    newest = folder.latest()
    assert newest is not None
    damage(newest.with_suffix(part), how)
    assert load_checkpoint(FQL, folder).offline_steps == 10
    run(**OFFLINE, resume=True)
    assert f"The checkpoint '{newest}' is damaged" in capsys.readouterr().err
    assert_same_runs(folder, undisturbed)
    assert newest.with_name(f"{newest.name}.damaged").is_file()


@pytest.mark.parametrize("how", ["missing", "flipped"])
def test_a_checkpoint_with_damaged_transitions_is_not_used(
    run: Any, folder: RunFolder, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    options = {"steps": 5, "online_steps": 10, "eval_every": 0}
    run(**options)
    newest = folder.latest()
    assert newest is not None
    damage(folder.buffer_of(newest), how)
    model = load_checkpoint(FQL, folder)
    assert (model.num_timesteps, model.replay_buffer.size()) == (5, 5)
    run(**options, resume=True)
    assert "step_000000010.zip instead. It is kept as step_000000015.zip.damaged" in capsys.readouterr().err
    model = load_checkpoint(FQL, folder)
    assert (model.num_timesteps, model.replay_buffer.size()) == (10, 10)


def test_if_all_checkpoints_are_damaged_the_error_says_what_to_do(run: Any, folder: RunFolder) -> None:
    run()
    for path in folder.list_checkpoints():
        damage(path, "truncated")
    folder.policy.unlink()
    folder.model.unlink()
    for use in (lambda: run(resume=True), lambda: load_policy(folder.path), lambda: load_checkpoint(FQL, folder)):
        with pytest.raises(ArtifactError, match=r"No checkpoint of the run is whole\..*--overwrite"):
            use()
    assert len(folder.list_checkpoints()) == 2
    run(overwrite=True)


@pytest.mark.parametrize(
    "tail", [b"offline,15,1,0.", b"offline,15,1\n", b"\0" * 40, b"offline,15,1,nan,nan,nan,-4.0,x,-4.0,8.0\n"]
)
def test_a_torn_last_row_of_the_evaluations_is_cut_off(
    run: Any, folder: RunFolder, undisturbed: RunFolder, capsys: pytest.CaptureFixture[str], tail: bytes
) -> None:
    shutil.copytree(undisturbed.path, folder.path)
    with folder.evaluations.open("ab") as file:
        file.write(tail)
    assert folder.read_evaluations() == undisturbed.read_evaluations()
    run(**OFFLINE, resume=True)
    assert f"The last row of '{folder.evaluations}' was not finished" in capsys.readouterr().err
    assert folder.evaluations.read_bytes() == undisturbed.evaluations.read_bytes()


@pytest.mark.parametrize("tail", [b"1.5,2", b"\0\0\0", b"1.5,2\n"])
def test_a_torn_last_row_of_the_log_is_cut_off(
    run: Any, folder: RunFolder, undisturbed: RunFolder, capsys: pytest.CaptureFixture[str], tail: bytes
) -> None:
    shutil.copytree(undisturbed.path, folder.path)
    with folder.progress.open("ab") as file:
        file.write(tail)
    run(**OFFLINE, resume=True)
    assert f"The last row of '{folder.progress}' was not finished" in capsys.readouterr().err
    assert rows(folder) == rows(undisturbed)


@pytest.mark.parametrize("name", ["progress", "evaluations"])
def test_a_torn_row_in_the_middle_is_an_error_that_names_it(run: Any, folder: RunFolder, name: str) -> None:
    run()
    path: Path = getattr(folder, name)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b"offline,5", *lines[1:]]))
    with pytest.raises(
        ArtifactError, match=rf"{path.name}', row 1 below the header: the row has 2 cells.*move the file"
    ):
        run(resume=True)
    path.unlink()
    run(resume=True)


@pytest.mark.parametrize("content", [b"PK\x03\x04\rabc\n", b"a\x00b\r\r\n\n", b"a,b\n" + b"x" * 200_000 + b",1\n2,3\n"])
def test_another_file_in_the_place_of_a_table_is_an_artifact_error(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path)
    folder.evaluations.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"evaluations\.csv"):
        folder.read_evaluations()


def test_a_damaged_record_is_an_error_that_says_what_to_do(run: Any, folder: RunFolder) -> None:
    run(steps=2)
    for content in ("", "{", "[]", '{"algorithm": 3}', '{"algorithm": "fql"}'):
        folder.config.write_text(content)
        with pytest.raises(ArtifactError, match=r"config\.json.*--overwrite"):
            run(steps=4, resume=True)
    run(steps=2, overwrite=True)


def test_files_have_the_permissions_of_the_umask(run: Any, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    during: set[str] = set()

    def on_step(self: ProgressCallback) -> bool:
        during.update(path.name for path in folder.path.iterdir() if path.stat().st_mode & 0o777 == 0o640)
        return True

    monkeypatch.setattr(ProgressCallback, "_on_step", on_step)
    before = os.umask(0o027)
    try:
        run(steps=6, online_steps=6)
    finally:
        os.umask(before)
    assert ".lock" in during
    modes = {path.relative_to(folder.path).as_posix(): path.stat().st_mode & 0o777 for path in folder.path.rglob("*")}
    assert len(modes) > 10
    assert {
        name: mode for name, mode in modes.items() if mode != (0o750 if (folder.path / name).is_dir() else 0o640)
    } == {}


def limit_size_of_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_costs_no_checkpoint_and_says_what_to_do(run: Any, folder: RunFolder, tmp_path: Path) -> None:
    run(steps=5)

    def go_on() -> None:
        limit_size_of_files(20_000)
        run(steps=10, resume=True)

    process = Copy(go_on, tmp_path / "log")
    assert process.code() == 99
    said = process.output.splitlines()[-1]
    assert f"NoSpaceError: '{folder.checkpoints / 'step_000000010.zip'}' could not be written: the largest size" in said
    assert re.search(r"It needs at least \d\d,\d{3} bytes, and [\d,]+ bytes are free on its disk\..*--resume", said)
    assert [path.name for path in folder.list_checkpoints()] == ["step_000000005.zip"]
    assert leftovers(folder) == []
    run(steps=10, resume=True)
    assert load_checkpoint(FQL, folder).offline_steps == 10


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", ["progress", "evaluations"])
def test_a_row_that_does_not_fit_is_not_written_by_half(tmp_path: Path, name: str, number: int) -> None:
    path = tmp_path / f"{name}.csv"
    path.write_bytes(b"a,b\n1,2\n")

    class Full(io.FileIO):
        def write(self, content: Any, /) -> int:
            super().write(bytes(content)[:2])
            raise OSError(number, "full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", lambda path, mode, **_: Full(path, mode))
        with pytest.raises(NoSpaceError, match=rf"{name}\.csv' could not be written: .* It needs at least 5 bytes"):
            append_text(path, "3,40\n")
    assert path.read_bytes() == b"a,b\n1,2\n"
