"""A small environment that reports success, a dataset of it, and settings of short runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box
from same_runs import OFFLINE
from tiny import tiny

from flowpolicies.algorithms import FQL, OfflineAlgorithm
from flowpolicies.data import TransitionDataset
from flowpolicies.training import RunFolder, SB3Hyperparameters, TrainSettings, train


class Reach(gym.Env[Any, Any]):
    """A point on a line; an episode succeeds if the point is beyond zero after eight steps."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.t = self.np_random.normal(size=1).astype(np.float32), 0
        return self.x, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.x, self.t = self.x + np.float32(0.2) * action, self.t + 1
        return self.x, -abs(float(self.x[0])), False, self.t == 8, {"is_success": bool(self.x[0] > 0)}


gym.register("Reach-v0", Reach)


@pytest.fixture(scope="session")
def reach_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of random episodes of the environment."""
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(80, 1)), rng.uniform(-2, 2, (80, 1))
    dataset = TransitionDataset.from_arrays(
        observations,
        actions,
        -np.abs(observations[:, 0]),
        observations + 0.2 * actions,
        terminations=np.zeros(80),
        truncations=np.arange(80) % 8 == 7,
        observation_space=Reach.observation_space,
        action_space=Reach.action_space,
        name="reach",
    )
    return dataset.save(tmp_path_factory.mktemp("reach") / "reach.npz")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture
def make_model(reach_file: Path) -> Callable[..., OfflineAlgorithm]:
    """A small FQL model on this dataset."""
    return lambda **options: tiny(FQL, dataset=f"npz:{reach_file}", **options)


@pytest.fixture
def settings(reach_file: Path, folder: RunFolder) -> Callable[..., TrainSettings]:
    """Settings of a short run in `folder`."""

    def make(**changes: Any) -> TrainSettings:
        tiny_run = {"steps": 10, "eval_every": 5, "eval_episodes": 3, "checkpoint_every": 5, "log_every": 5}
        place = {"dataset": f"npz:{reach_file}", "env": "Reach-v0", "run_dir": folder.path, "device": "cpu"}
        return TrainSettings(**{**tiny_run, **place, **changes})

    return make


@pytest.fixture
def config() -> Any:
    return FQL.Config(actor_hidden_dims=(16, 16), value_hidden_dims=(16, 16), flow_steps=3)


@pytest.fixture
def sb3_hyperparameters() -> SB3Hyperparameters:
    return SB3Hyperparameters(batch_size=16, learning_starts=4, buffer_size=200)


@pytest.fixture
def run(config: Any, sb3_hyperparameters: SB3Hyperparameters, settings: Any) -> Callable[..., RunFolder]:
    """Trains in `folder`, with evaluations of one episode."""

    def call(**changes: Any) -> RunFolder:
        return train(FQL, config, settings(**{"eval_episodes": 1, **changes}), sb3_hyperparameters, command=("train",))

    return call


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for the results of runs that several tests compare with."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def undisturbed(run: Any, kept: Path) -> RunFolder:
    """A run that nobody disturbed."""
    folder = RunFolder(kept / "undisturbed")
    return folder if folder.model.is_file() else run(**OFFLINE, run_dir=folder.path)
