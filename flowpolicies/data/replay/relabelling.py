"""Hindsight goals for transitions that are collected online, as Stable-Baselines3's `HerReplayBuffer` draws them."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from gymnasium.spaces import Dict, Space
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from flowpolicies.data.replay.goals import ACHIEVED, DESIRED, STATE
from flowpolicies.data.replay.store import Store
from flowpolicies.spaces.layout import observation_layout

STRATEGIES = ("future", "final", "episode")


@final
@dataclass(frozen=True, kw_only=True)
class OnlineGoals:
    """Distribution of the goals of online transitions, with the options of Stable-Baselines3's `HerReplayBuffer`.

    A share n / (n + 1) of the online rows of a batch gets the goal that a state of the same episode achieved, with
    n = `n_sampled_goal`; the others keep theirs. The environment's `compute_reward` gives the rewards, and terminations
    stay as they are. An episode that has not ended yet counts up to its newest step.

    Examples:
        >>> from flowpolicies.data import OnlineGoals
        >>> options = {"replay_buffer_kwargs": {"online_goals": OnlineGoals(n_sampled_goal=4)}}
    """

    n_sampled_goal: int = 4
    """Number of transitions with drawn goals for each transition that keeps its goal, at least 0."""
    goal_selection_strategy: str = "future"
    """Where goals come from: "future" (this step of the episode or a later one), "final" (its last step) or "episode"
    (any of its steps)."""
    copy_info_dict: bool = False
    """Whether info dicts are stored and given to `compute_reward`, which takes memory and time."""

    def __post_init__(self) -> None:
        given = self.goal_selection_strategy
        name = str(getattr(given, "name", given)).lower()  # Stable-Baselines3 also has an enumeration of them.
        if name not in STRATEGIES:
            raise ValueError(f"goal_selection_strategy must be one of {', '.join(STRATEGIES)}, got {given!r}")
        object.__setattr__(self, "goal_selection_strategy", name)
        if self.n_sampled_goal < 0:
            raise ValueError(f"n_sampled_goal must be at least 0, got {self.n_sampled_goal}")


@final
class Relabelling:
    """Draws goals for online transitions, and puts them into flat observations.

    Args:
        options: distribution of the goals.
        space: Dict space of the observations, with `observation`, `achieved_goal` and `desired_goal`.

    Raises:
        ValueError: if the space has no such goals.
    """

    def __init__(self, options: OnlineGoals, space: Space[Any]) -> None:
        if not isinstance(space, Dict) or not {STATE, ACHIEVED, DESIRED} <= set(space.spaces):
            raise ValueError(
                f"online_goals need observations with the keys '{STATE}', '{ACHIEVED}' and '{DESIRED}', but the space "
                f"is {space}. Leave online_goals out."
            )
        if space[ACHIEVED].shape != space[DESIRED].shape:
            raise ValueError(
                f"'{ACHIEVED}' and '{DESIRED}' must have the same shape, got {space[ACHIEVED].shape} and "
                f"{space[DESIRED].shape}"
            )
        self.options, self.env = options, None
        self.shape: tuple[int, ...] = space[DESIRED].shape or ()
        first, self.columns = 0, {}
        for entry in observation_layout(space):
            size = math.prod(entry.shape)
            self.columns[entry.key] = slice(first, first + size)
            first += size

    env: VecEnv | None
    """The environment whose `compute_reward` is called."""

    def draw(self, store: Store, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Rows `[B]` whose next states are the goals of the transitions `rows` `[B]`; -1: the transition keeps its
        goal."""
        n, count = self.options.n_sampled_goal, len(rows)
        stream, step = store.locate(rows)
        first, last = store.episodes.bounds(stream, step)
        if self.options.goal_selection_strategy == "final":
            first = last
        elif self.options.goal_selection_strategy == "future":
            first = step
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        goals = store.at(stream, first + (uniform * (last - first + 1)).long())
        kept = torch.randperm(count, generator=generator)[int(count * n / (n + 1)) :]
        return goals.index_fill(0, kept, -1)

    def rewards(self, store: Store, rows: Tensor, goals: Tensor) -> tuple[Tensor, None]:
        """Rewards of the steps `rows` `[B, H]` for the goals in the rows `goals` `[B]`; the masks stay as stored.

        Raises:
            ValueError: if there is no environment yet.
        """
        rewards, drawn = store.columns["rewards"][rows], goals >= 0
        if not drawn.any():
            return rewards, None
        if self.env is None:
            raise ValueError("online_goals need an environment for its compute_reward; call set_env(env) first.")
        steps = rows[drawn]
        achieved = self._goals(store, steps.flatten())
        desired = self._goals(store, goals[drawn]).repeat(steps.shape[1], axis=0)
        infos: list[Any] = [{} for _ in range(steps.numel())]
        if self.options.copy_info_dict and store.infos is not None:
            infos = [deepcopy(store.infos[row]) for row in steps.flatten().tolist()]
        computed = self.env.env_method("compute_reward", achieved, desired, infos, indices=[0])[0]
        rewards[drawn] = torch.from_numpy(np.asarray(computed, np.float32).reshape(steps.shape))
        return rewards, None

    def _goals(self, store: Store, rows: Tensor) -> np.ndarray:
        """What the states after the steps `rows` `[B]` achieve, `[B, *shape]`."""
        flat = store.take("next_observations", rows)[:, self.columns[ACHIEVED]]
        return flat.reshape(-1, *self.shape).numpy()

    def place(self, store: Store, flat: Tensor, goals: Tensor) -> Tensor:
        """Flat observations `[B, O]` with the drawn goals."""
        drawn = goals >= 0
        found = store.take("next_observations", goals[drawn])[:, self.columns[ACHIEVED]]
        placed = flat.clone()
        placed[drawn.nonzero().squeeze(-1), self.columns[DESIRED]] = found
        return placed
