from __future__ import annotations

import pytest

from flowpolicies.algorithms import FQL
from flowpolicies.benchmarking.step import seconds_per_update
from flowpolicies.cli.evaluation.forecast import updates_of
from flowpolicies.training import SB3Hyperparameters, TrainSettings


def test_the_time_of_an_update_is_measured() -> None:
    config = FQL.Config(actor_hidden_dims=(8,), value_hidden_dims=(8,), flow_steps=1)
    found = seconds_per_update("fql", config, TrainSettings(device="cpu"), SB3Hyperparameters(batch_size=4), seconds=0)
    assert 0 < found < 60


@pytest.mark.parametrize(
    ("done", "gradient_steps", "left"),
    [(0, 1, 150), (60, 1, 90), (120, 1, 30), (0, 2, 200), (120, -1, 30), (200, 1, 0)],
)
def test_updates_that_are_left(done: int, gradient_steps: int, left: int) -> None:
    settings = TrainSettings(steps=100, online_steps=50)
    assert updates_of(settings, SB3Hyperparameters(gradient_steps=gradient_steps), done) == left
    assert updates_of(settings, SB3Hyperparameters(train_freq=5)) == 110
