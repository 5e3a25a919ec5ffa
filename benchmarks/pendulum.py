"""Pendulum: a scripted controller, data that it makes, and returns to compare with."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np

from flowpolicies.data import TransitionDataset
from flowpolicies.policies.evaluation import Interval, mean_interval

ENV = "Pendulum-v1"
LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Shares of random actions; as many episodes of each."""
EPISODES_PER_LEVEL = 20
NOISE = 0.3
REFERENCE_EPISODES = 100


def controller(observation: np.ndarray) -> float:
    """Swing up by energy, then hold by position and velocity: about -140."""
    cosine, sine, velocity = observation.tolist()
    if cosine > 0.9 and abs(velocity) < 3:
        return float(np.clip(-10 * np.arctan2(sine, cosine) - 2 * velocity, -2, 2))
    missing = 15 - (velocity**2 / 2 + 15 * cosine)  # Up to a factor; at rest above it is 0.
    return float(np.clip(missing * (1 if velocity >= 0 else -1), -2, 2))


def roll_out(share: float, noise: float, seed: int) -> list[tuple[np.ndarray, np.ndarray, float, np.ndarray]]:
    """An episode of the controller with Gaussian noise, of whose actions a share is random instead."""
    env, rng = gym.make(ENV), np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    rows, truncated = [], False
    while not truncated:
        random = rng.random() < share
        wish = rng.uniform(-2, 2) if random else controller(observation) + noise * rng.normal()
        action = np.array([np.clip(wish, -2, 2)], np.float32)
        following, reward, _, truncated, _ = env.step(action)
        rows.append((observation, action, float(reward), following))
        observation = following
    return rows


def make_data(path: Path) -> TransitionDataset:
    """The dataset, from the file if it is there."""
    if path.is_file():
        return TransitionDataset.load(path)
    env = gym.make(ENV)
    shares = LEVELS * EPISODES_PER_LEVEL
    rows = [row for seed, share in enumerate(shares) for row in roll_out(share, NOISE, seed)]
    observations, actions, rewards, following = (np.array(column) for column in zip(*rows, strict=True))
    ends = np.arange(len(rows)) % 200 == 199
    dataset = TransitionDataset.from_arrays(
        observations,
        actions,
        rewards,
        following,
        terminations=np.zeros(len(rows), bool),
        truncations=ends,
        observation_space=env.observation_space,
        action_space=env.action_space,
        name="pendulum-mixed",
        provenance={"source": "benchmarks/registry.py", "env": ENV, "random shares": list(LEVELS)},
    )
    dataset.save(path)
    return dataset


def reference(share: float, noise: float) -> Interval:
    """Return of the uniform random policy (share 1), or of the controller, over fresh episodes."""
    seeds = range(10_000, 10_000 + REFERENCE_EPISODES)
    return mean_interval(np.array([sum(row[2] for row in roll_out(share, noise, seed)) for seed in seeds]))


def episode_returns(dataset: TransitionDataset) -> np.ndarray:
    """Sums of rewards over trajectories."""
    starts = np.append(0, dataset.episode_ends[:-1] + 1)
    return np.add.reduceat(dataset.rewards.astype(np.float64), starts)
