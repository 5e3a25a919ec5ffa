from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from torch.testing import assert_close

from flowpolicies.algorithms import FQL
from flowpolicies.training import (
    AtomicCheckpoint,
    EvaluationCallback,
    InterruptBetweenSteps,
    ProgressCallback,
    RunFolder,
)
from flowpolicies.training.callbacks import Every, shorten


class Spy(BaseCallback):
    """Calls a function once, at a given step."""

    def __init__(self, step: int, action: Any) -> None:
        super().__init__()
        self.step, self.action = step, action

    def _on_step(self) -> bool:
        if self.num_timesteps == self.step:
            self.action()
        return True


def test_every_counts_multiples_that_were_passed() -> None:
    every = Every(10)
    every.start(4)
    assert [every.is_due(step) for step in (8, 12, 16, 20, 41, 44)] == [False, True, False, True, True, False]
    assert not Every(0).is_due(10)


def test_evaluation_writes_rows_in_both_phases(folder: RunFolder, make_model: Any) -> None:
    model = make_model(env=gym.make("Reach-v0"), learning_starts=4)
    callback = EvaluationCallback(gym.make("Reach-v0"), every=4, episodes=3, folder=folder)
    model.learn_offline(10, callback=callback)
    model.learn(9, callback=callback)
    rows = folder.read_evaluations()
    assert [(row.phase, row.step) for row in rows] == [("offline", 4), ("offline", 8), ("online", 4), ("online", 8)]
    for row in rows:
        assert (row.episodes, row.length) == (3, 8)
        assert 0 <= row.low <= row.success <= row.high <= 1
        assert row.return_low <= row.mean_return <= row.return_high < 0


def test_evaluation_needs_no_environment_of_the_model_and_reaches_the_log(
    folder: RunFolder, make_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model()
    model.set_logger(configure(str(folder.path), ["csv"]))
    model.learn_offline(4, callback=EvaluationCallback(gym.make("Reach-v0"), every=4, episodes=2, verbose=1))
    header, *rows = folder.progress.read_text().splitlines()
    assert {"eval/success_rate", "eval/ep_rew_mean", "eval/ep_len_mean", "time/offline_steps"} <= set(header.split(","))
    assert any(dict(zip(header.split(","), row.split(","), strict=True))["eval/ep_len_mean"] == "8.0" for row in rows)
    assert "offline step 4: 2 episodes (sampled actions): success" in capsys.readouterr().out


def test_training_does_not_notice_evaluations(make_model: Any) -> None:
    def train(every: int) -> dict[str, torch.Tensor]:
        model = make_model(env=gym.make("Reach-v0"), learning_starts=4)
        callback = EvaluationCallback(gym.make("Reach-v0"), every=every, episodes=2)
        model.learn_offline(6, callback=callback)
        model.learn(20, callback=callback)
        return model.policy.state_dict()

    assert_close(train(every=0), train(every=3), rtol=0, atol=0)


def test_evaluations_are_a_function_of_seed_and_step(folder: RunFolder, make_model: Any) -> None:
    model = make_model()
    model.learn_offline(1)
    for seed, step in ((0, 5), (0, 5), (1, 5), (0, 6)):
        callback = EvaluationCallback(gym.make("Reach-v0"), 0, 3, folder=folder, seed=seed)
        callback.init_callback(model)
        callback.evaluate("offline", step)
    returns = [row.mean_return for row in folder.read_evaluations()]
    assert returns[0] == returns[1]
    assert len(set(returns)) == 3


def test_a_checkpoint_of_either_phase_has_the_counters_of_a_model_at_rest(folder: RunFolder, make_model: Any) -> None:
    model = make_model(env=gym.make("Reach-v0"), learning_starts=4, buffer_size=50)
    callback = AtomicCheckpoint(folder, every=4, keep=10)
    model.learn_offline(9, callback=callback)
    model.learn(5, callback=callback)
    found = {path.name: FQL.load(path) for path in folder.list_checkpoints()}
    counters = {name: (loaded.offline_steps, loaded.num_timesteps) for name, loaded in found.items()}
    assert counters == {"step_000000004.zip": (4, 0), "step_000000008.zip": (8, 0), "step_000000013.zip": (9, 4)}
    assert folder.buffer_of(folder.checkpoints / "step_000000013.zip").is_file()
    assert not folder.buffer_of(folder.checkpoints / "step_000000008.zip").is_file()


def test_the_bar_shows_steps_losses_and_success(make_model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(env=gym.make("Reach-v0"))
    progress = ProgressCallback(disable=False)
    evaluation = EvaluationCallback(gym.make("Reach-v0"), every=2, episodes=2)
    model.learn_offline(6, callback=[progress, evaluation], log_interval=2)
    model.learn(5, callback=progress)
    printed = capsys.readouterr().err
    assert "offline: 100%" in printed
    assert "6/6" in printed
    assert re.search(r"critic=[^\]]*, success=\d", printed)
    assert "online: 100%" in printed
    assert progress._latest not in model.logger.output_formats


def test_losses_are_named_by_their_term() -> None:
    values = {"train/critic/loss": 0.123456, "train/actor_loss/loss": 2.0, "train/critic/q_mean": 5.0}
    assert shorten(values | {"eval/success_rate": 0.5}) == {"critic": "0.123", "actor": "2", "success": "0.5"}


@contextmanager
def recorded_handlers() -> Iterator[list[Any]]:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_between_two_steps(make_model: Any, number: int) -> None:
    model, interrupt = make_model(), InterruptBetweenSteps()
    late: list[int] = []

    def press() -> None:
        os.kill(os.getpid(), number)
        late.append(model.offline_steps)  # The handler has run and this step goes on.

    with recorded_handlers(), pytest.raises(KeyboardInterrupt), interrupt:
        model.learn_offline(10, callback=[Spy(4, press), interrupt])
    assert late == [4]
    assert (model.offline_steps, model._n_updates, model.num_timesteps) == (4, 4, 0)
    assert not interrupt.is_forced


def test_a_second_signal_stops_at_once(make_model: Any) -> None:
    model, interrupt = make_model(), InterruptBetweenSteps()
    late: list[int] = []

    def press_twice() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        late.append(model.offline_steps)

    with recorded_handlers(), pytest.raises(KeyboardInterrupt), interrupt:
        model.learn_offline(10, callback=[Spy(4, press_twice), interrupt])
    assert interrupt.is_forced
    assert late == []


def test_a_signal_after_the_last_step_is_not_lost() -> None:
    with recorded_handlers(), pytest.raises(KeyboardInterrupt), InterruptBetweenSteps():
        os.kill(os.getpid(), signal.SIGINT)
