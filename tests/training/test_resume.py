"""Runs that were killed, damaged or written by other versions, and are continued."""

from __future__ import annotations

import builtins
import csv
import dataclasses
import errno
import io
import json
import os
import re
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from killing import killed_at
from processes import Copy
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.testing import assert_close

from flowpolicies.algorithms import ALGORITHMS, FQL, get_algorithm
from flowpolicies.artifacts import ArtifactError
from flowpolicies.data import TransitionDataset
from flowpolicies.files import NoSpaceError, append_text
from flowpolicies.shell.fields import added_fields
from flowpolicies.training import (
    ProgressCallback,
    RunFolder,
    SB3Hyperparameters,
    TrainSettings,
    load_checkpoint,
    load_policy,
    train,
)

WALL_CLOCK = {"time/steps_per_second", "time/time_elapsed", "time/fps"}


@pytest.fixture
def run(config: Any, sb3_hyperparameters: Any, settings: Any) -> Callable[..., RunFolder]:
    def call(**changes: Any) -> RunFolder:
        return train(FQL, config, settings(**{"eval_episodes": 1, **changes}), sb3_hyperparameters, command=("train",))

    return call


def rows(folder: RunFolder) -> list[dict[str, str]]:
    """Rows of the log without the columns of the wall clock and without empty cells."""
    with open(folder.progress, newline="") as file:
        found = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if value and key not in WALL_CLOCK} for row in found]


def events(folder: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """Tag -> steps and values of TensorBoard, over all event files of a phase."""
    found = {}
    for phase in sorted(folder.events.iterdir()):
        accumulator = EventAccumulator(str(phase), size_guidance={"scalars": 0}, purge_orphaned_data=False)
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            if tag not in WALL_CLOCK:
                found[f"{phase.name}/{tag}"] = [(event.step, event.value) for event in accumulator.Scalars(tag)]
    return found


def assert_same_runs(one: RunFolder, two: RunFolder, algorithm: Any = FQL) -> None:
    """Both runs have the same weights, optimiser, generators, evaluations, log rows and events."""
    mine, theirs = (algorithm.load(folder.model, device="cpu").get_parameters() for folder in (one, two))
    assert_close(mine, theirs, rtol=0, atol=0)
    assert one.read_evaluations() == two.read_evaluations()
    assert rows(one) == rows(two)
    assert events(one) == events(two)
    assert [path.name for path in one.list_checkpoints()] == [path.name for path in two.list_checkpoints()]


def leftovers(folder: RunFolder) -> list[str]:
    return [path.name for path in folder.path.rglob(".*")]


class Stopped(BaseException):
    """An end without any of the saving that follows Ctrl-C."""


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    def on_step(self: ProgressCallback) -> bool:
        if self.num_timesteps == step:
            raise Stopped
        return True

    monkeypatch.setattr(ProgressCallback, "_on_step", on_step)


OFFLINE = {"steps": 12, "checkpoint_every": 5, "eval_every": 5, "log_every": 4}
"""Checkpoints cut intervals of the log in two, and an evaluation and a checkpoint come at the same step."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for the results of runs that several tests compare with."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def undisturbed(run: Any, kept: Path) -> RunFolder:
    """The run that nobody disturbed."""
    folder = RunFolder(kept / "undisturbed")
    return folder if folder.model.is_file() else run(**OFFLINE, run_dir=folder.path)


FEW = {1, 9, 18, 27, 36, 45, 54}
EVERY = [number if number in FEW else pytest.param(number, marks=pytest.mark.slow) for number in range(120)]


@pytest.mark.parametrize("number", EVERY)
def test_a_kill_at_any_file_operation_costs_nothing(run: Any, folder: RunFolder, undisturbed: Any, number: int) -> None:
    assert killed_at(number, lambda: run(**OFFLINE)) or number > 54
    run(**OFFLINE, resume=True)
    assert_same_runs(folder, undisturbed)
    assert leftovers(folder) == []


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 6, 9])
def test_a_kill_while_an_old_run_is_replaced_leaves_a_folder_that_is_taken(
    run: Any, folder: RunFolder, undisturbed: RunFolder, number: int
) -> None:
    shutil.copytree(undisturbed.path, folder.path)
    killed_at(number, lambda: run(**OFFLINE, overwrite=True))
    run(**OFFLINE, overwrite=True)
    assert_same_runs(folder, undisturbed)
    assert leftovers(folder) == []


@pytest.mark.parametrize("online_steps", [1, 3])
def test_an_early_kill_online_before_the_first_row(
    run: Any, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, online_steps: int
) -> None:
    options = {"dataset": None, "steps": 0, "online_steps": 6, "checkpoint_every": 1, "eval_every": 0}
    with monkeypatch.context() as patch:
        stop_at(patch, online_steps)
        with pytest.raises(Stopped):
            run(**options)
    run(**options, resume=True)
    assert load_checkpoint(FQL, folder).num_timesteps == 6


def test_a_folder_with_only_leftovers_is_free(run: Any, folder: RunFolder) -> None:
    folder.checkpoints.mkdir(parents=True)
    for name in (".config.json.0123abcd.tmp", "checkpoints/.step_000000005.zip.0123abcd.tmp", ".lock"):
        (folder.path / name).write_text("half")
    run(steps=2)
    assert leftovers(folder) == []


def test_the_rest_of_a_run_without_config_is_replaced_when_asked(run: Any, folder: RunFolder) -> None:
    run(steps=2)
    folder.config.unlink()
    with pytest.raises(FileExistsError, match=r"holds the rest of a run whose config\.json is missing.*--overwrite"):
        run(steps=2, resume=True)
    run(steps=2, overwrite=True)
    assert folder.config.is_file()


@pytest.mark.parametrize("name", ["fql", "rql", "qam", "iql", "bc"])
def test_rows_of_an_interval_that_a_checkpoint_cuts_are_whole(
    name: str, settings: Any, sb3_hyperparameters: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm: Any = get_algorithm(name)
    sizes = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,), "flow_steps": 2, "ensemble": 2}
    known = algorithm.Config.__dataclass_fields__
    config = algorithm.Config(**{key: value for key, value in sizes.items() if key in known})

    def run(folder: str, **changes: Any) -> RunFolder:
        chosen = settings(**{**OFFLINE, "eval_episodes": 1, "run_dir": tmp_path / folder, **changes})
        return train(algorithm, config, chosen, sb3_hyperparameters)

    whole = run("whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        with pytest.raises(Stopped):
            run("cut")
    assert_same_runs(run("cut", resume=True), whole, algorithm)


def test_a_run_that_is_extended_equals_one_in_a_piece(run: Any, folder: RunFolder, undisturbed: RunFolder) -> None:
    run(**{**OFFLINE, "steps": 6, "eval_every": 5})  # Its last interval is not complete, and was logged.
    run(**OFFLINE, resume=True)
    assert rows(folder) == rows(undisturbed)
    assert events(folder) == events(undisturbed)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "flipped":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.write_bytes(b"" if how == "empty" else content[: len(content) // 2])


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


@pytest.mark.parametrize("how", ["missing", "truncated", "flipped"])
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


def test_fewer_steps_than_are_done_are_refused(run: Any) -> None:
    run(steps=6, online_steps=8, eval_every=0)
    with pytest.raises(ValueError, match=r"has done 6 offline steps, and --steps 5 asks for fewer\. Pass --steps 6"):
        run(steps=5, online_steps=8, resume=True)
    with pytest.raises(ValueError, match=r"has done 8 online steps, and --online-steps 7 asks for fewer\. Pass --onl"):
        run(steps=6, online_steps=7, resume=True)


def test_another_number_of_environments_is_refused_once_there_are_transitions(run: Any, folder: RunFolder) -> None:
    run(dataset=None, steps=0, online_steps=6, eval_every=0)
    two = DummyVecEnv([lambda: gym.make("Reach-v0")] * 2)
    with pytest.raises(ValueError, match=r"were collected in 1 environments and cannot .*in 2\. Pass --n-envs 1, or"):
        load_checkpoint(FQL, folder, two)
    assert load_checkpoint(FQL, folder).replay_buffer.size() == 6


def test_the_record_keeps_what_every_part_ran_with(
    run: Any, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(steps=6)
    first = folder.read_config()["software"]
    module = sys.modules["flowpolicies.training.train"]  # The package has a function of this name.
    monkeypatch.setattr(module, "describe_software", lambda: {"flowpolicies": "9.9"})
    run(steps=10, resume=True)
    record = folder.read_config()
    assert record["software"] == first
    one, two = record["parts"]
    assert (one["software"], two["software"]) == (first, {"flowpolicies": "9.9"})
    assert (one["from"]["offline"], one["to"]["offline"], one["asked"]["offline"]) == (0, 6, 6)
    assert (two["from"]["offline"], two["to"]["offline"], two["asked"]["offline"]) == (6, 10, 10)
    assert one["command"] == "train"
    assert {"began", "hardware"} <= one.keys()


def test_fields_of_a_newer_version_are_refused(run: Any, folder: RunFolder) -> None:
    run()
    for section in ("hyperparameters", "sb3_hyperparameters", "settings"):
        record = json.loads(folder.config.read_text())
        record[section]["temperature"] = 2.0
        folder.write_config(record)
        with pytest.raises(ArtifactError, match=rf"{section}: .*does not know 'temperature'.*update flowpolicies"):
            run(resume=True)
        del record[section]["temperature"]
        folder.write_config(record)


def test_a_field_that_was_added_acts_as_before(
    run: Any, folder: RunFolder, config: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(steps=5)
    record = json.loads(folder.config.read_text())
    del record["hyperparameters"]["alpha"]
    folder.write_config(record)
    monkeypatch.setattr(FQL.Config, "added", {"alpha": 3.0})  # As if alpha was new, with another default than before.
    run(steps=6, resume=True)
    assert (
        "alpha is 3.0, as the run began with a version of flowpolicies that did not have it" in capsys.readouterr().err
    )
    assert folder.read_config()["hyperparameters"]["alpha"] == 3.0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"algorithm": 3}', '{"algorithm": "fql"}'])
def test_a_damaged_record_is_an_error_that_says_what_to_do(run: Any, folder: RunFolder, content: str) -> None:
    run(steps=2)
    folder.config.write_text(content)
    with pytest.raises(ArtifactError, match=r"config\.json.*--overwrite"):
        run(steps=4, resume=True)
    run(steps=2, overwrite=True)


SAVED = Path(__file__).parent.parent / "saved"


def test_a_run_of_version_0_1_0_continues(
    tmp_path: Path, data: TransitionDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(SAVED / "run", folder.path)
    before = folder.read_config()
    path = data.save(tmp_path / "pendulum.npz")
    config = FQL.Config(**{**before["hyperparameters"], "flow_steps": 2})
    sb3_hyperparameters = SB3Hyperparameters(**before["sb3_hyperparameters"])
    changes = {"dataset": f"npz:{path}", "run_dir": folder.path, "resume": True, "online_steps": 24, "eval_episodes": 0}
    settings = TrainSettings(**{**before["settings"], **changes})
    train(FQL, config, settings, sb3_hyperparameters, command=("train",))
    assert "Continuing after 12 offline and 20 online steps." in capsys.readouterr().out
    model = load_checkpoint(FQL, folder)
    assert (model.offline_steps, model.num_timesteps, model.replay_buffer.size()) == (12, 24, 24)
    record = folder.read_config()
    assert record["software"] == before["software"]
    assert [part["command"] for part in record["parts"]] == [*before["commands"], "train"]
    assert len(folder.read_evaluations()) == 6


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_damaged_checkpoint_of_version_0_1_0_is_noticed(tmp_path: Path, how: str) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(SAVED / "run", folder.path)
    damage(folder.checkpoints / "step_000000032.zip", how)
    with pytest.raises(ArtifactError, match=r"step_000000032\.zip is damaged"):
        load_checkpoint(FQL, folder)


def test_every_field_that_the_stored_fields_lack_says_how_old_runs_behaved() -> None:
    stored = json.loads((SAVED / "fields.json").read_text())
    assert set(stored) <= {*ALGORITHMS, "sb3_hyperparameters", "settings"}
    classes: dict[str, Any] = {name: get_algorithm(name).Config for name in ALGORITHMS if name in stored}
    for name, config in {**classes, "sb3_hyperparameters": SB3Hyperparameters, "settings": TrainSettings}.items():
        known = {getattr(config, "renamed", {}).get(old, old) for old in stored[name]}
        new = {field.name for field in dataclasses.fields(config)} - known
        assert new <= added_fields(config).keys(), f"declare the old behavior of {new} in {config.__name__}.added"


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
