"""A dataset of Pendulum-v1 that is generated in seconds when it is loaded: "pendulum:mixed".

A scripted controller swings the pendulum up and balances it; a share of its actions is replaced by random ones. The
tables `pendulum` and `pendulum-tuned` of `flowpolicies reproduce` train on this dataset. The functions `load` and
`make_env` are entry points of the groups `flowpolicies.datasets` and `flowpolicies.environments`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from flowpolicies.data import TransitionDataset

NAME = "mixed"
ENV_ID = "Pendulum-v1"
RANDOM_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Shares of random actions; each has the same number of episodes."""
EPISODES_PER_SHARE = 20
NOISE = 0.3
"""Standard deviation of the Gaussian noise on the controller's actions."""
EPISODE_STEPS = 200


class Transition(NamedTuple):
    """One step of the environment."""

    observation: np.ndarray[Any, Any]
    action: np.ndarray[Any, Any]
    reward: float
    next_observation: np.ndarray[Any, Any]


def load(name: str) -> TransitionDataset:
    """Generates the dataset "pendulum:mixed": 100 episodes of 200 steps.

    Raises:
        ValueError: for another name.
    """
    _check_name(name)
    env = gym.make(ENV_ID)
    shares = RANDOM_SHARES * EPISODES_PER_SHARE
    rows = [row for seed, share in enumerate(shares) for row in roll_out(share, NOISE, seed)]
    observations, actions, rewards, next_observations = (np.array(column) for column in zip(*rows, strict=True))
    return TransitionDataset.from_arrays(
        observations,
        actions,
        rewards,
        next_observations,
        terminations=np.zeros(len(rows), bool),
        truncations=np.arange(len(rows)) % EPISODE_STEPS == EPISODE_STEPS - 1,
        observation_space=env.observation_space,
        action_space=env.action_space,
        name=f"pendulum-{NAME}",
        provenance={"source": f"pendulum:{NAME}", "env": ENV_ID, "random shares": list(RANDOM_SHARES)},
    )


def make_env(name: str) -> gym.Env[Any, Any]:
    """The environment of the dataset, Pendulum-v1.

    Raises:
        ValueError: for another name than that of the dataset.
    """
    _check_name(name)
    return gym.make(ENV_ID)


def _check_name(name: str) -> None:
    if name != NAME:
        raise ValueError(f"unknown dataset 'pendulum:{name}'; the only one is 'pendulum:{NAME}'.")


def controller(observation: np.ndarray[Any, Any]) -> float:
    """Torque that swings the pendulum up and balances it; its mean return is about -140."""
    cosine, sine, velocity = observation.tolist()
    if cosine > 0.9 and abs(velocity) < 3:
        return float(np.clip(-10 * np.arctan2(sine, cosine) - 2 * velocity, -2, 2))
    # Energy below that of the upright pendulum at rest, up to a factor; torque along the velocity adds energy.
    missing_energy = 15 - (velocity**2 / 2 + 15 * cosine)
    return float(np.clip(missing_energy * (1 if velocity >= 0 else -1), -2, 2))


def roll_out(random_share: float, noise: float, seed: int) -> list[Transition]:
    """One episode of the controller.

    Args:
        random_share: probability that an action is uniformly random instead of the controller's.
        noise: standard deviation of the Gaussian noise on the controller's actions.
        seed: seed of the environment and of the actions.
    """
    env, generator = gym.make(ENV_ID), np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    rows, truncated = list[Transition](), False
    while not truncated:
        is_random = generator.random() < random_share
        torque = generator.uniform(-2, 2) if is_random else controller(observation) + noise * generator.normal()
        action = np.array([np.clip(torque, -2, 2)], np.float32)
        next_observation, reward, _, truncated, _ = env.step(action)
        rows.append(Transition(observation, action, float(reward), next_observation))
        observation = next_observation
    return rows
