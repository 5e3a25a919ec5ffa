from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.save_util import load_from_pkl
from torch.testing import assert_close

from flowpolicies.algorithms import FQL
from flowpolicies.data import load_dataset
from flowpolicies.policies import FlowPolicy
from flowpolicies.training import ProgressCallback, RunFolder, load_checkpoint, train


@pytest.fixture
def run(config: Any, sb3_hyperparameters: Any, settings: Any) -> Callable[..., RunFolder]:
    """Settings of a short run in `folder`."""
    return lambda **changes: train(
        FQL, config, settings(**changes), sb3_hyperparameters, command=("flowpolicies", "train", "fql")
    )


def phases(folder: RunFolder) -> list[tuple[str, int]]:
    return [(row.phase, row.step) for row in folder.read_evaluations()]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int, error: type[BaseException], phase: str = "") -> None:
    """A callback that raises an error."""

    def on_step(self: ProgressCallback) -> bool:
        if self.num_timesteps == step and (phase == "online") != self.model.is_offline:
            raise error("now")
        return True

    monkeypatch.setattr(ProgressCallback, "_on_step", on_step)


def test_a_run_leaves_everything_behind(run: Any, folder: RunFolder, settings: Any) -> None:
    assert run(steps=10, online_steps=10) == folder
    found = {path.name for path in folder.path.iterdir()}
    files = {"config.json", "run.toml", "progress.csv", "evaluations.csv", "learning_curve.png"}
    assert found == {*files, "policy.safetensors", "model.zip", "checkpoints", "tensorboard"}
    assert phases(folder) == [("offline", 5), ("offline", 10), ("online", 5), ("online", 10)]
    assert [path.name for path in folder.list_checkpoints()] == ["step_000000015.zip", "step_000000020.zip"]
    assert {path.name for path in (folder.path / "tensorboard").iterdir()} == {"offline", "online"}
    model = FQL.load(folder.model)
    assert (model.offline_steps, model.num_timesteps) == (10, 10)
    assert_close(FlowPolicy.load(folder.policy).state_dict(), model.policy.state_dict())
    with open(folder.progress, newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"10"} <= {row["time/offline_steps"] for row in rows if row["train/critic/loss"]}
    assert {"10"} <= {row["time/total_timesteps"] for row in rows if row["train/critic/loss"]}


def test_the_config_says_how_to_repeat_the_run(run: Any, folder: RunFolder, settings: Any) -> None:
    run()
    record = json.loads(folder.config.read_text())
    assert record["algorithm"] == "fql"
    assert record["hyperparameters"]["alpha"] == 10.0
    assert record["hyperparameters"]["actor_hidden_dims"] == [16, 16]
    assert record["sb3_hyperparameters"]["batch_size"] == 16
    assert (record["env"], record["seed"]) == ("Reach-v0", 0)
    assert record["commands"] == ["flowpolicies train fql"]
    dataset = load_dataset(settings().dataset)
    assert record["dataset"]["fingerprint"] == dataset.fingerprint
    assert (record["dataset"]["transitions"], record["dataset"]["episodes"]) == (80, 10)
    assert record["dataset"]["provenance"]["name"] == "reach"
    assert {"python", "torch", "numpy", "gymnasium", "stable_baselines3", "flowpolicies"} <= set(record["software"])
    assert record["hardware"]["cpu_count"] >= 1


def test_a_resumed_offline_run_equals_one_in_a_piece(run: Any, folder: RunFolder, tmp_path: Any) -> None:
    other = run(steps=20, run_dir=tmp_path / "in a piece")
    run(steps=10)
    run(steps=20, resume=True)
    one, two = FQL.load(other.model), FQL.load(folder.model)
    assert (two.offline_steps, two._n_updates) == (20, 20)
    for part, mine in one.get_parameters().items():  # Weights and targets, Adam's moments, generators.
        assert_close(two.get_parameters()[part], mine, rtol=0, atol=0)
    assert folder.read_evaluations() == other.read_evaluations()
    assert phases(folder) == [("offline", step) for step in (5, 10, 15, 20)]
    assert len(json.loads(folder.config.read_text())["commands"]) == 2


def test_a_finished_run_resumes_to_nothing(run: Any, folder: RunFolder) -> None:
    run()
    before = folder.latest().read_bytes()
    run(resume=True)
    assert folder.latest().read_bytes() == before
    assert phases(folder) == [("offline", 5), ("offline", 10)]


def test_resuming_without_a_checkpoint_begins(run: Any, folder: RunFolder) -> None:
    run(resume=True)
    assert phases(folder) == [("offline", 5), ("offline", 10)]


def test_an_online_run_goes_on_with_its_transitions(run: Any, folder: RunFolder) -> None:
    run(online_steps=10)
    buffer = load_from_pkl(folder.buffer_of(folder.latest()))
    run(online_steps=16, resume=True)
    model = load_checkpoint(FQL, folder)
    assert (model.offline_steps, model.num_timesteps) == (10, 16)
    assert model.replay_buffer.size() == 16
    assert_close(model.replay_buffer.online.columns["actions"][:10], buffer.online.columns["actions"][:10])
    begun = model.replay_buffer.online.columns["observations"][[0, 8, 10]]  # Episodes have eight steps.
    assert len(begun.unique()) == 3
    assert phases(folder)[-2:] == [("online", 15), ("online", 16)]
    with pytest.raises(
        ValueError,
        match=r"is in its online phase after 10 offline steps and cannot return to the offline phase for --steps 11",
    ):
        run(steps=11, resume=True)


def test_a_run_is_not_continued_with_other_settings(run: Any, config: Any, settings: Any, folder: RunFolder) -> None:
    run()
    before = folder.config.read_bytes()
    message = r"cannot be continued with other settings than it was started with \(seed: 0 in the run, 1 now\)"
    with pytest.raises(ValueError, match=message):
        run(resume=True, seed=1)
    other = FQL.Config(actor_hidden_dims=(16, 8), value_hidden_dims=(16, 16), flow_steps=3, alpha=3.0)
    message = (
        r"actor_hidden_dims: \[16, 16\] in the run, \[16, 8\] now; alpha: 10\.0 in the run, 3\.0 now; batch_size: 16"
    )
    with pytest.raises(ValueError, match=message):
        train(FQL, other, settings(resume=True))
    assert folder.config.read_bytes() == before


def test_an_old_run_is_replaced_only_when_the_new_one_can_begin(run: Any, folder: RunFolder) -> None:
    run()
    with pytest.raises(FileExistsError, match="holds a run already"):
        run()
    with pytest.raises(FileNotFoundError):
        run(overwrite=True, dataset="npz:missing.npz")
    assert phases(folder) == [("offline", 5), ("offline", 10)]
    run(overwrite=True, steps=5)
    assert phases(folder) == [("offline", 5)]
    assert [path.name for path in folder.list_checkpoints()] == ["step_000000005.zip"]


@pytest.mark.parametrize(("phase", "step", "at"), [("offline", 7, (7, 0)), ("online", 3, (10, 3))])
def test_ctrl_c_saves_and_says_how_to_continue(
    run: Any,
    folder: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    phase: str,
    step: int,
    at: tuple[int, int],
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, step, KeyboardInterrupt, phase)
        with pytest.raises(KeyboardInterrupt):
            run(online_steps=8, checkpoint_every=0, eval_every=0)
    assert folder.latest().name == f"step_{sum(at):09d}.zip"
    model = load_checkpoint(FQL, folder)
    assert (model.offline_steps, model.num_timesteps) == at
    assert folder.policy.is_file()
    assert f",{step}," in f",{folder.progress.read_text().splitlines()[-1]},"
    printed = capsys.readouterr().out
    assert f"its latest checkpoint is {folder.latest()}" in printed
    assert "Continue with: flowpolicies train fql --resume" in printed
    run(online_steps=8, resume=True)
    assert phases(folder)[-1] == ("online", 8)


def test_a_forced_stop_saves_no_half_updated_model(
    run: Any, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_step(self: FQL, gradient_steps: int, batch_size: int) -> None:
        self._n_updates += gradient_steps
        if self._n_updates == 8:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(FQL, "train", train_step)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert folder.latest().name == "step_000000005.zip"


def test_a_crash_keeps_checkpoints_and_log(run: Any, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 8, RuntimeError)
        with pytest.raises(RuntimeError, match="now"):
            run()
    assert folder.latest().name == "step_000000005.zip"
    assert ",8," in f",{folder.progress.read_text().splitlines()[-1]},"
    run(resume=True)
    assert phases(folder) == [("offline", 5), ("offline", 10)]
    with open(folder.progress, newline="") as file:
        steps = [int(row["time/offline_steps"]) for row in csv.DictReader(file)]
    assert steps == [5, 5, 10, 10]  # A row of losses and one of an evaluation; what was after the checkpoint is gone.


def test_without_an_environment_there_is_no_evaluation(
    run: Any, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run(env=None)
    assert not folder.evaluations.exists()
    assert not folder.plot.exists()
    assert folder.policy.is_file()
    assert "No evaluation: " in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"online training needs an environment, .* Pass --env\."):
        run(env=None, online_steps=5, overwrite=True)


def test_data_of_another_environment_is_refused(run: Any) -> None:
    with pytest.raises(ValueError, match="the dataset's observation_space does not match the model's"):
        run(env="Pendulum-v1")


def test_the_folder_is_named_after_algorithm_data_and_seed(settings: Any) -> None:
    assert settings(run_dir=None, dataset="npz:/data/my file.npz", seed=3).folder("fql").as_posix() == (
        "runs/fql-my-file-seed3"
    )
    assert settings(run_dir=None, dataset="ogbench:cube-single-play-singletask-v0").folder("bc").name == (
        "bc-cube-single-play-singletask-v0-seed0"
    )


def test_transformed_rewards_are_trained_on_and_raw_ones_reported(run: Any, folder: RunFolder, settings: Any) -> None:
    run(reward_transform="antmaze100", online_steps=24, eval_every=0)
    raw = load_dataset(settings().dataset)
    record = folder.read_config()
    assert record["dataset"]["fingerprint"] != raw.fingerprint
    assert record["dataset"]["reward"]["min"] == pytest.approx(100 * float(raw.rewards.min()))
    assert record["dataset"]["provenance"]["reward_transform"]["name"] == "antmaze100"
    model = load_checkpoint(FQL, folder)
    online = model.replay_buffer.online.columns["rewards"][:24]
    assert online.min() < -20  # A step of the environment costs less than 5.
    assert all(-40 < row.mean_return < 0 for row in folder.read_evaluations())


def test_a_run_keeps_its_reward_transform(run: Any) -> None:
    run(steps=2)
    with pytest.raises(ValueError, match="reward_transform: none in the run, iql_antmaze now"):
        run(steps=4, reward_transform="iql_antmaze", resume=True)


def test_training_from_nothing_needs_only_an_environment(run: Any, folder: RunFolder) -> None:
    run(dataset=None, steps=0, online_steps=10, reward_transform="antmaze100")
    assert folder.read_config()["dataset"] == {"address": None}
    model = load_checkpoint(FQL, folder)
    assert model.num_timesteps == 10
    assert model._n_updates == 6  # From the fifth environment step on.
    run(dataset=None, steps=0, online_steps=12, reward_transform="antmaze100", resume=True)
    assert load_checkpoint(FQL, folder).num_timesteps == 12


def test_training_from_nothing_says_what_is_missing(run: Any) -> None:
    with pytest.raises(ValueError, match=r"there is no dataset for --steps 10\. Pass --dataset, or train online"):
        run(dataset=None)
    with pytest.raises(ValueError, match=r"online training needs an environment\. Pass --env\."):
        run(dataset=None, env=None, steps=0, online_steps=5)
    with pytest.raises(ValueError, match="'normalize' takes its numbers from a dataset, and there is none"):
        run(dataset=None, steps=0, online_steps=5, reward_transform="normalize")


def test_data_in_files_give_the_same_run(run: Any, tmp_path: Path) -> None:
    policies = []
    for storage in ("ram", "memmap"):
        found = run(storage=storage, cache_dir=tmp_path / "cache", run_dir=tmp_path / storage, steps=3, eval_episodes=0)
        policies.append(found.policy.read_bytes())
    assert policies[0] == policies[1]
    assert len([folder for folder in (tmp_path / "cache").iterdir() if folder.is_dir()]) == 1
