"""The four datasets of the 2D experiments: points with rewards, as one-step problems without information in the state.

Doo et al., "Q-Flow: Stable and Expressive Reinforcement Learning with Flow-Based Policy",
https://arxiv.org/abs/2605.13435
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box

from flowpolicies.data import TransitionDataset
from flowpolicies.messages import did_you_mean

BOX = 4.0
"""Half the width of the box [-4, 4]^2 of all points. It is the action space, so networks see points divided by it."""
POINTS = 10_000
"""Number of points of a dataset."""


class Points(NamedTuple):
    """Points and their rewards."""

    positions: np.ndarray
    """Coordinates `[N, 2]` float32, inside the box."""
    rewards: np.ndarray
    """Rewards `[N]` float32, from 0 to about 1."""


def swiss_roll(n: int, random: np.random.Generator) -> Points:
    """A spiral arm whose reward |x|^2 / 9 grows outwards; the points of scikit-learn's `make_swiss_roll(noise=1)`."""
    t = 1.5 * np.pi * (1 + 2 * random.uniform(size=n))
    positions = _clipped((t[:, None] * np.stack([np.cos(t), np.sin(t)], 1) + random.normal(size=(n, 2))) / 5)
    return _points(positions, np.square(positions).sum(1) / 9)


def two_spirals(n: int, random: np.random.Generator) -> Points:
    """Two spiral arms that meet in the centre, where the reward 1 - angle / 10 is largest."""
    angle = 3 * np.pi * np.sqrt(random.uniform(size=n))
    arm = angle[:, None] * np.stack([-np.cos(angle), np.sin(angle)], 1) + 0.1 * random.normal(size=(n, 2))
    sign = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    return _points(_clipped(sign[:, None] * arm / 3), np.clip(1 - angle / 10, 0, 1))


def eight_gaussians(n: int, random: np.random.Generator) -> Points:
    """Eight clusters on a circle, whose rewards are 0, 1/7, ..., 1 from the top counterclockwise."""
    index = random.integers(8, size=n)
    angle = np.deg2rad(90 + 45 * index)
    centers = 4 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return _points(_clipped((centers + 0.5 * random.normal(size=(n, 2))) / np.sqrt(2)), index / 7)


def moons(n: int, random: np.random.Generator) -> Points:
    """Two half circles with the rewards 0 and 1; the points of scikit-learn's `make_moons(noise=0.1)`."""
    angle = np.linspace(0, np.pi, (n + 1) // 2)
    outer = np.stack([np.cos(angle), np.sin(angle)], 1)
    inner = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)[: n // 2]
    both = np.concatenate([outer, inner]) + 0.1 * random.normal(size=(n, 2))
    return _points(_clipped(2 * both + [-1, -0.2]), np.repeat([0.0, 1.0], [len(outer), len(inner)]))


DATASETS: Mapping[str, Callable[[int, np.random.Generator], Points]] = {
    "swissroll": swiss_roll,
    "two_spirals": two_spirals,
    "eight_gaussians": eight_gaussians,
    "moons": moons,
}
"""Name on the command line -> function that draws the points."""


def draw_points(dataset: str, n: int = POINTS, seed: int = 0) -> Points:
    """Points of a dataset.

    Args:
        dataset: a name in `DATASETS`.
        n: number of points.
        seed: seed of the draw; the training data have seed 0, and other seeds give held-out points.

    Raises:
        ValueError: for an unknown name.
    """
    if dataset not in DATASETS:
        raise ValueError(
            f"there is no toy dataset {dataset!r}; there are {', '.join(DATASETS)}.{did_you_mean(dataset, DATASETS)}"
        )
    return DATASETS[dataset](n, np.random.default_rng([seed, *dataset.encode()]))


def as_transitions(points: Points, name: str, steps: int = 1) -> TransitionDataset:
    """A dataset of short episodes: the observation is always 0, the action is a point, and nothing follows it.

    Args:
        points: the points.
        name: name of the dataset, for messages.
        steps: number of rows in a row that repeat a point, which form its episode: more than one for algorithms whose
            batches leave out the last step of an episode. No value is bootstrapped after any of them.
    """
    observations = np.zeros((steps * len(points.positions), 1), np.float32)
    terminals = np.zeros(len(observations), np.float32)
    terminals[steps - 1 :: steps] = 1
    return TransitionDataset.from_arrays(
        observations,
        points.positions.repeat(steps, axis=0),
        points.rewards.repeat(steps),
        observations,
        masks=np.zeros(len(observations), np.float32),
        terminals=terminals,
        observation_space=Box(-1, 1, (1,), np.float32),
        action_space=Box(-BOX, BOX, (2,), np.float32),
        name=name,
    )


def _clipped(positions: np.ndarray) -> np.ndarray:
    return positions.clip(-BOX, BOX)


def _points(positions: np.ndarray, rewards: np.ndarray) -> Points:
    return Points(positions.astype(np.float32), rewards.astype(np.float32))
