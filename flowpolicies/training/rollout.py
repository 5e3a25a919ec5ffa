"""Recording what a policy does as a dataset that can be trained on."""

from __future__ import annotations

import copy
from typing import Any, SupportsFloat, final

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from flowpolicies.data import TransitionDataset
from flowpolicies.policies import Evaluation, evaluate
from flowpolicies.policies.evaluation import Predicts


@final
class TransitionRecorder(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps every transition of an environment, to be made a dataset."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._rows: dict[str, list[Any]] = {
            key: []
            for key in ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
        }
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step, which is kept."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        row = copy.deepcopy((self._observation, action, reward, observation, terminated, truncated))
        for column, value in zip(self._rows.values(), row, strict=True):
            column.append(value)
        self._observation = observation
        return observation, reward, terminated, truncated, info

    def dataset(self, name: str, provenance: dict[str, Any]) -> TransitionDataset:
        """Everything so far."""
        columns = {key: _stack(rows) for key, rows in self._rows.items()}
        assert isinstance(self.observation_space, spaces.Box | spaces.Dict)
        return TransitionDataset.from_arrays(
            **columns,
            observation_space=self.observation_space,
            action_space=self.action_space,
            name=name,
            provenance=provenance,
        )


def _stack(rows: list[Any]) -> Any:
    if isinstance(rows[0], dict):
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    return np.stack(rows)


def rollout(
    policy: Predicts,
    env: gym.Env[Any, Any],
    episodes: int,
    *,
    seed: int | None = None,
    deterministic: bool = False,
    name: str = "rollout",
    provenance: dict[str, Any] | None = None,
) -> tuple[TransitionDataset, Evaluation]:
    """Episodes of a policy as a dataset, and what they come to.

    Args:
        seed: of the episodes; None: they differ from call to call.
        deterministic: start flows at zero noise.
        name, provenance: of the dataset.

    Raises:
        ValueError: for fewer than one episode, or if the environment does not fit the policy.
    """
    recorder = TransitionRecorder(env)
    found = evaluate(policy, recorder, episodes, deterministic=deterministic, seed=seed)
    return recorder.dataset(name, provenance or {}), found
