"""The guide to rl_zoo3: its script, its hyperparameters and all of its commands work."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from flowpolicies import SAC, QFlow, TransitionDataset
from flowpolicies.algorithms import OfflineAlgorithm

pytest.importorskip("rl_zoo3", reason="rl_zoo3 is not installed: pip install 'flowpolicies[zoo]', or make zoo")

import rl_zoo3
import rl_zoo3.exp_manager
import rl_zoo3.hyperparams_opt
import yaml

GUIDE = (Path(__file__).parents[3] / "docs" / "guides" / "rl_zoo3.md").read_text()
SHORT = {
    "train": "--n-timesteps 240 --eval-freq 120 --eval-episodes 1 --seed 1 --device cpu",
    "enjoy": "--n-timesteps 210 --no-render",
    "record_video": "--n-timesteps 5",
}
"""Options for each command that make it quick; of an option that is given twice, argparse takes the last."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


COMMANDS = re.findall(r"^python zoo\.py (.*)$", GUIDE, re.MULTILINE)
TRAIN, CONTINUE, WATCH, WATCH_BEST, RECORD, SEARCH, RETRAIN, FINE_TUNE = COMMANDS


@pytest.fixture(autouse=True)
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the guide's files, and the dictionaries of rl_zoo3 as they are when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    for table in (rl_zoo3.ALGOS, rl_zoo3.hyperparams_opt.HYPERPARAMS_SAMPLER):
        for name, value in table.items():
            monkeypatch.setitem(table, name, value)
    script, _ = blocks("python")
    hyperparameters, offline = blocks("yaml")
    (tmp_path / "zoo.py").write_text(script)
    (tmp_path / "qflow.yml").write_text(hyperparameters)
    (tmp_path / "offline.yml").write_text(offline)
    return tmp_path


def run(command: str, *extra: str) -> None:
    """Runs a command of the guide in this process, made short."""
    name, *options = shlex.split(command)
    before = sys.argv
    sys.argv = ["zoo.py", name, *options, *shlex.split(SHORT[name]), *extra]
    try:
        runpy.run_path("zoo.py", run_name="__main__")
    finally:
        sys.argv = before


def trained(number: int) -> Any:
    """The model of a run."""
    return QFlow.load(f"logs/qflow/Pendulum-v1_{number}/Pendulum-v1.zip", device="cpu")


def test_train_continue_and_watch(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(TRAIN)
    first = trained(1)
    assert (first.num_timesteps, first.gamma, first.flow_steps) == (240, 0.98, 5)
    assert first.cfg.actor_hidden_dims == (64, 64)
    assert first.gradient_steps == -1
    assert 0 < first._n_updates <= 240
    assert first.action_noise is not None
    assert first.observation_space.shape == (4,)  # Of the wrapper.
    assert list((workshop / "checkpoints").glob("*.zip"))
    assert np.load("logs/qflow/Pendulum-v1_1/evaluations.npz")["results"].shape == (2, 1)
    assert "critic/loss" in capsys.readouterr().out

    run(CONTINUE)
    second = trained(2)
    assert second.guidance_lambda == 3.0
    assert second._n_updates > first._n_updates
    second.load_replay_buffer("logs/qflow/Pendulum-v1_2/replay_buffer.pkl")
    assert second.replay_buffer.size() == 480  # Of both runs.

    def fresh() -> gym.Env:
        return rl_zoo3.get_wrapper_class(yaml.safe_load(blocks("yaml")[0])["Pendulum-v1"])(gym.make("Pendulum-v1"))

    statistics = VecNormalize.load("logs/qflow/Pendulum-v1_2/Pendulum-v1/vecnormalize.pkl", DummyVecEnv([fresh]))
    assert statistics.obs_rms.count > 480

    capsys.readouterr()
    run(WATCH)
    run(WATCH_BEST)
    assert capsys.readouterr().out.count("Mean reward: -") == 2


def test_record_video(workshop: Path) -> None:
    pytest.importorskip("pygame", reason="Pendulum is drawn with pygame, which is not installed")
    run(TRAIN, "--eval-freq", "-1", "--n-timesteps", "20")
    run(RECORD)
    assert list(workshop.rglob("*.mp4"))


def test_search(capsys: pytest.CaptureFixture[str]) -> None:
    run(SEARCH, "--n-trials", "2", "--n-startup-trials", "2")
    shown = capsys.readouterr().out
    assert "Number of finished trials:  2" in shown
    assert "guidance_lambda: " in shown
    run(RETRAIN, "--trial-id", "1", "--eval-freq", "-1", "--n-timesteps", "20")
    manager = rl_zoo3.exp_manager
    found = manager.optuna.load_study(
        study_name="qflow",
        storage=manager.optuna.storages.JournalStorage(
            manager.optuna.storages.journal.JournalFileBackend("search.log")
        ),
    ).trials
    assert [trial.state.name for trial in found] == ["COMPLETE", "COMPLETE"]
    model = trained(len(list(Path("logs/qflow").glob("Pendulum-v1_*"))))
    assert model.guidance_lambda == found[1].params["guidance_lambda"]
    assert model.cfg.actor_hidden_dims == (found[1].params["width"],) * 2


def test_continue_after_offline_training() -> None:
    rng, env = np.random.default_rng(0), gym.make("Pendulum-v1")
    states = rng.normal(size=(401, 3)).astype(np.float32)
    ends = np.arange(400) % 50 == 49
    TransitionDataset.from_arrays(
        states[:-1],
        rng.uniform(-2, 2, (400, 1)).astype(np.float32),
        rng.normal(size=400),
        states[1:],
        terminations=np.zeros(400, bool),
        truncations=ends,
        observation_space=env.observation_space,
        action_space=env.action_space,
    ).save("pendulum.npz")
    exec(blocks("python")[1].replace("20_000", "3"), {})
    run(FINE_TUNE, "--eval-freq", "-1", "--n-timesteps", "20")
    model = trained(1)
    assert (model.num_timesteps, model.offline_steps) == (20, 3)
    assert model.dataset_record["address"] == "npz:pendulum.npz"


def test_an_algorithm_under_the_name_sac_is_loaded_with_a_tiny_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rl_zoo3.ALGOS, "sac", SAC)
    buffer_sizes: list[int] = []

    class Watched(SAC):  # type: ignore[misc]
        """SAC that notes what it is loaded with."""

        @classmethod
        def load(cls, *args: Any, **kwargs: Any) -> OfflineAlgorithm:
            buffer_sizes.append(kwargs["buffer_size"])
            model = SAC.load(*args, **kwargs)
            assert model.learning_rate == 0
            return model

    Path("sac.yml").write_text(
        "default: {n_timesteps: 20, policy: MlpPolicy, actor_hidden_dims: [8, 8], value_hidden_dims: [8, 8]}"
    )
    run("train --algo sac --env Pendulum-v1 --conf-file sac.yml", "--n-timesteps", "20", "--eval-freq", "-1")
    again = ("-i", "logs/sac/Pendulum-v1_1/Pendulum-v1.zip", "--n-timesteps", "20", "--eval-freq", "-1")
    run("train --algo sac --env Pendulum-v1 --conf-file sac.yml", *again)
    rl_zoo3.ALGOS["sac"] = Watched
    run("enjoy --algo sac --env Pendulum-v1 -f logs")
    assert buffer_sizes == [1]
