"""The log of training, when callbacks write it as well as the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import configure

from flowpolicies import FQL
from flowpolicies.algorithms import OfflineAlgorithm
from tests.support.tiny import pendulum_data, tiny

FORMATS = ["stdout", "log", "json", "csv", "tensorboard"]


class Dump(BaseCallback):
    """Writes the log itself every ten steps, as SB3's EvalCallback does after an evaluation."""

    def _on_step(self) -> bool:
        if self.n_calls % 10 == 0:
            self.logger.record("mine/calls", self.n_calls)
            self.logger.dump(self.num_timesteps)
        return True


def lines(model: OfflineAlgorithm, folder: Path) -> list[dict[str, Any]]:
    model.logger.close()
    return [json.loads(line) for line in (folder / "progress.json").read_text().splitlines()]


def logged(model: OfflineAlgorithm, folder: Path) -> OfflineAlgorithm:
    model.set_logger(configure(str(folder), FORMATS))
    return model


def test_a_callback_that_dumps_the_log_while_learning_online_writes_losses_as_numbers(tmp_path: Path) -> None:
    model = logged(tiny(FQL, env="Pendulum-v1", learning_starts=5), tmp_path)
    model.learn(20, callback=Dump())
    first, second = lines(model, tmp_path)
    assert (first["mine/calls"], second["mine/calls"]) == (10, 20)
    assert np.isfinite([first["train/critic/loss"], second["train/critic/loss"]]).all()
    assert second["train/learning_rate"] == pytest.approx(3e-4)
    assert second["train/n_updates"] == 14


def test_a_callback_that_dumps_the_log_of_learn_offline_writes_its_own_values(tmp_path: Path) -> None:
    model = logged(tiny(FQL, dataset=pendulum_data()), tmp_path)
    model.learn_offline(30, callback=Dump(), log_interval=15)
    written = lines(model, tmp_path)
    assert [line["mine/calls"] for line in written if "mine/calls" in line] == [10, 20, 30]
    means = [line["train/critic/loss"] for line in written if "train/critic/loss" in line]
    assert len(means) == 2
    assert np.isfinite(means).all()


def test_eval_callback_works_with_a_verbose_model(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = EvalCallback(gym.make("Pendulum-v1"), n_eval_episodes=1, eval_freq=10, verbose=0)
    tiny(FQL, env="Pendulum-v1", learning_starts=5, verbose=1).learn(10, callback=evaluation)
    shown = capsys.readouterr().out
    assert "mean_reward" in shown
    assert "critic/loss" in shown
    assert "tensor(" not in shown
