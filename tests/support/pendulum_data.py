"""Transitions of Pendulum as columns, what may be wrong with them, and what the checks say of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from flowpolicies.data import TransitionDataset
from flowpolicies.inspection import Finding, inspect_dataset

Array = np.ndarray[Any, Any]
Columns = dict[str, Array]
Corruption = Callable[[Columns], None]

EPISODES, STEPS = 12, 100
SPACES = {"observation_space": Box(-np.inf, np.inf, (3,)), "action_space": Box(-2.0, 2.0, (1,))}


def roll_out(policy: Callable[[Array], Array]) -> Columns:
    """What Pendulum does under a policy."""
    env, rows = gym.make("Pendulum-v1"), []
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=episode)
        for _ in range(STEPS):
            action = np.clip(policy(observation), -2, 2).astype(np.float32)
            following, reward, _, _, _ = env.step(action)
            rows.append((observation, following, action, np.float32(reward)))
            observation = following
    names = ("observations", "next_observations", "actions", "rewards")
    columns = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    is_last = np.arange(len(rows)) % STEPS == STEPS - 1
    return {**columns, "masks": np.ones(len(rows), np.float32), "terminals": is_last.astype(np.float32)}


def as_dataset(columns: Columns, **options: Any) -> TransitionDataset:
    """Without the checks of the constructor, as from a folder that another program wrote into."""
    ends = np.flatnonzero(columns["terminals"])
    known = {"provenance": {"name": "pendulum"}, "fingerprint": "", "episode_ends": ends}
    return TransitionDataset.trusted(columns, **{**SPACES, **known, **options})


def problems(columns: Columns, severity: str = "fault", **options: Any) -> list[Finding]:
    """What is found of this severity."""
    return [f for f in inspect_dataset(as_dataset(columns), **options).findings if f.severity == severity]


def put(key: str, value: float) -> Corruption:
    def corrupt(columns: Columns) -> None:
        columns[key][437] = value

    return corrupt


def join(columns: Columns) -> None:
    columns["terminals"][4 * STEPS - 1] = 0


def join_by_shift(columns: Columns) -> None:
    """s' made from the next row, so that it leads from one trajectory into another."""
    join(columns)
    columns["next_observations"][4 * STEPS - 1] = columns["observations"][4 * STEPS]


def copy_episode(columns: Columns) -> None:
    for column in columns.values():
        column[7 * STEPS : 8 * STEPS] = column[2 * STEPS : 3 * STEPS]


def reset_for_last(columns: Columns) -> None:
    """What a vector environment returns with the last step: the first state of the next trajectory."""
    columns["next_observations"][:-1] = columns["observations"][1:]
