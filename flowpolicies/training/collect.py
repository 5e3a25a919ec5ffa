"""Collects datasets with a policy."""

from __future__ import annotations

import copy
from contextlib import closing, nullcontext
from typing import Any, SupportsFloat, final

import gymnasium as gym
import numpy as np
import torch
from tqdm import tqdm

from flowpolicies.data import TransitionDataset, make_env, open_writer
from flowpolicies.policies import Evaluation, evaluate
from flowpolicies.policies.evaluation import Predicts, check_predicts


def collect(
    policy: Predicts,
    env: gym.Env[Any, Any] | str,
    episodes: int,
    *,
    out: str | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    provenance: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[TransitionDataset, Evaluation]:
    """Collects whole episodes of a policy as a dataset.

    The policy's state is passed from call to call, so that action chunks and recurrent policies work. All T+1
    observations of an episode are kept. The dataset is written after the last episode, atomically.

    Args:
        policy: a `FlowPolicy`, a model of Stable-Baselines3, or any object with the same `predict`.
        env: environment, or the address or Gymnasium id of one.
        episodes: number of episodes.
        out: address to write to, "npz:PATH" or "minari:NAME"; None: the dataset is not written.
        seed: seed of the environment, of the policy's generator if it has one, and of torch's global generator, which
            is restored afterwards.
        deterministic: passed to `predict`; flows start at zero noise.
        overwrite: replace an existing dataset at `out`.
        progress: show a progress bar.
        provenance: JSON data that is added to the provenance of the dataset.
        **options: options of the writer, such as `author` and `description` for Minari.

    Returns:
        The dataset, and the evaluation of the episodes.

    Raises:
        FileExistsError: before the first episode, if there is a dataset at `out` and `overwrite` is not set.
        ValueError: if `episodes` is less than 1, for an unknown writer, or if the environment does not fit the policy.
        TypeError: if `policy` has no `predict`, or `env` is not an environment.
    """
    check_predicts(policy)
    if not isinstance(env, gym.Env | str):
        raise TypeError(f"env must be an environment, or an address such as 'Pendulum-v1', got {env!r}")
    write = None if out is None else open_writer(out, overwrite=overwrite, env=env, **options)
    facts = {
        "source": "collect",
        "env": env if isinstance(env, str) else env.spec.id if env.spec else type(env.unwrapped).__name__,
        "policy": type(policy).__name__,
        "seed": seed,
        "deterministic": deterministic,
        **(provenance or {}),
    }
    name = "collected" if out is None else out.partition(":")[2]
    with (
        closing(make_env(env)) if isinstance(env, str) else nullcontext(env) as made,
        tqdm(total=episodes, desc="collecting", unit="episode", dynamic_ncols=True, disable=not progress) as bar,
        torch.random.fork_rng(range(torch.cuda.device_count())),
    ):
        if seed is not None:
            torch.manual_seed(seed)  # Models of Stable-Baselines3 sample with the global generator.
        recorder = _Recorder(made, bar)
        found = evaluate(policy, recorder, episodes, deterministic=deterministic, seed=seed)
        dataset = recorder.dataset(name, facts)
    if write is not None:
        write(dataset)
    return dataset, found


@final
class _Recorder(gym.Wrapper[Any, Any, Any, Any]):
    """Records the transitions of an environment, and advances a progress bar by one for each episode."""

    def __init__(self, env: gym.Env[Any, Any], bar: tqdm[Any]) -> None:
        super().__init__(env)
        self._bar = bar
        self._rows: dict[str, list[Any]] = {
            key: []
            for key in ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
        }
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Takes a step and records it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        row = copy.deepcopy((self._observation, action, reward, observation, terminated, truncated))
        for column, value in zip(self._rows.values(), row, strict=True):
            column.append(value)
        self._observation = observation
        self._bar.update(int(terminated or truncated))
        return observation, reward, terminated, truncated, info

    def dataset(self, name: str, provenance: dict[str, Any]) -> TransitionDataset:
        """The recorded transitions as a dataset."""
        columns = {key: _stack(rows) for key, rows in self._rows.items()}
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
