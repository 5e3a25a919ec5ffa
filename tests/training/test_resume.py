"""Runs that were killed, or written by other versions, and are continued."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from killing import killed_at
from same_runs import OFFLINE, assert_same_runs, damage, events, leftovers, rows
from stable_baselines3.common.vec_env import DummyVecEnv

from flowpolicies.algorithms import ALGORITHMS, FQL, get_algorithm
from flowpolicies.artifacts import ArtifactError
from flowpolicies.data import TransitionDataset
from flowpolicies.shell.fields import added_fields
from flowpolicies.training import (
    ProgressCallback,
    RunFolder,
    SB3Hyperparameters,
    TrainSettings,
    load_checkpoint,
    train,
)


class Stopped(BaseException):
    """An end without any of the saving that follows Ctrl-C."""


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    def on_step(self: ProgressCallback) -> bool:
        if self.num_timesteps == step:
            raise Stopped
        return True

    monkeypatch.setattr(ProgressCallback, "_on_step", on_step)


MORE = [pytest.param(number, marks=pytest.mark.more) for number in range(4, 120, 9)]
"""A run has about 110 file operations."""


@pytest.mark.parametrize("number", [1, 20, 36, 54, *MORE])
def test_a_kill_at_any_file_operation_costs_nothing(run: Any, folder: RunFolder, undisturbed: Any, number: int) -> None:
    assert killed_at(number, lambda: run(**OFFLINE)) or number > 54
    run(**OFFLINE, resume=True)
    assert_same_runs(folder, undisturbed)
    assert leftovers(folder) == []


@pytest.mark.parametrize("number", [1, 3, 6])
def test_a_kill_while_an_old_run_is_replaced_leaves_a_folder_that_is_taken(
    run: Any, folder: RunFolder, undisturbed: RunFolder, number: int
) -> None:
    shutil.copytree(undisturbed.path, folder.path)
    killed_at(number, lambda: run(**OFFLINE, overwrite=True))
    run(**OFFLINE, overwrite=True)
    assert_same_runs(folder, undisturbed)
    assert leftovers(folder) == []


@pytest.mark.parametrize("online_steps", [1])
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


SLOWER = [pytest.param(name, marks=pytest.mark.more) for name in ("fql", "qam", "qc", "bc", "sac", "bdpo")]


@pytest.mark.parametrize("name", ["rql", "iql", *SLOWER])
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
    module = importlib.import_module("flowpolicies.training.train")  # The package has a function of this name.
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
