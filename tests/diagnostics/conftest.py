"""Data of the corridor, and a model with the true values."""

from __future__ import annotations

import numpy as np
import pytest
from corridor import GAMMA, LENGTH, Corridor, Known, true_value
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from tiny import tiny

from flowpolicies.algorithms import OfflineAlgorithm, QFlow
from flowpolicies.data import TransitionDataset


@pytest.fixture(scope="session")
def walks() -> TransitionDataset:
    """Walks to the goal, in steps of about 1, each of which begins near 0."""
    rng, observations, actions, ends = np.random.default_rng(0), [], [], []
    for _ in range(20):
        x = rng.uniform(0, 0.1)
        while x < LENGTH:
            observations.append(x)
            actions.append(rng.uniform(0.5, 1.0))
            x += actions[-1]
            ends.append(x >= LENGTH)
    states, steps, arrived = (np.array(column) for column in (observations, actions, ends))
    return TransitionDataset.from_arrays(
        states[:, None].astype(np.float32),
        steps[:, None].astype(np.float32),
        -1.0 + arrived,
        (states + steps)[:, None].astype(np.float32),
        terminations=arrived,
        observation_space=Corridor.observation_space,
        action_space=Corridor.action_space,
        name="walks",
    )


@pytest.fixture
def model(walks: TransitionDataset) -> OfflineAlgorithm:
    """An untrained Q-Flow with the true values."""
    made = tiny(QFlow, dataset=walks, gamma=GAMMA)
    made.policy.networks["critic"] = Known(true_value)
    return made


@pytest.fixture
def corridors() -> VecEnv:
    return DummyVecEnv([Corridor] * 3)
