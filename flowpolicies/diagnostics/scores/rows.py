"""Transitions of a dataset with the actions of a policy, and the policy left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowpolicies.data import TransitionDataset
from flowpolicies.data.dataset.rows import read
from flowpolicies.policies.evaluation import Predicts, check_predicts
from flowpolicies.spaces.layout import Observations, as_tensor, flatten_arrays, scale_actions
from flowpolicies.tree import take, tree_map

BLOCK = 4096
"""Number of observations for which a policy is asked at once."""
STARTS = 256
"""Largest number of states in which episodes begin."""


class PolicyRows(NamedTuple):
    """Transitions with the policy's next actions, and beginnings of episodes with its first actions."""

    observations: Observations
    """Observations `[N, *shape]`, as the dataset has them."""
    actions: np.ndarray
    """Actions of the data, `[N, *A]`."""
    rewards: np.ndarray
    """Rewards of the transitions, `[N]`."""
    masks: np.ndarray
    """1, or 0 where the next state is terminal, `[N]`."""
    next_observations: Observations
    """Next observations, `[N, *shape]`."""
    next_actions: np.ndarray
    """Actions of the policy at the next observations, `[N, *A]`."""
    starts: Observations
    """Observations in which episodes begin, `[S, *shape]`."""
    start_actions: np.ndarray
    """Actions of the policy there, `[S, *A]`."""


def policy_rows(
    policy: Predicts, dataset: TransitionDataset, rows: int, *, deterministic: bool = False, seed: int = 0
) -> PolicyRows:
    """Draws transitions of a dataset, and asks the policy for its actions, once for each.

    Args:
        policy: anything with Stable-Baselines3's `predict`. It is left as it was, with its random generators.
        dataset: the transitions.
        rows: largest number of transitions; there are no more if the dataset has more.
        deterministic: passed to `predict`.
        seed: seed of the draw, and of the policy's noise.
    """
    check_predicts(policy)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(dataset), min(rows, len(dataset)), replace=False))
    starts = dataset.episode_starts[np.linspace(0, dataset.num_episodes - 1, STARTS).round().astype(int)]
    columns = {key: read(getattr(dataset, key), chosen) for key in ("actions", "rewards", "masks")}
    seen = {
        "observations": tree_map(lambda leaf: read(leaf, chosen), dataset.observations),
        "next_observations": tree_map(lambda leaf: read(leaf, chosen), dataset.next_observations),
        "starts": tree_map(lambda leaf: read(leaf, np.unique(starts)), dataset.observations),
    }
    normalizer = _normalizer(policy)
    show = (lambda value: value) if normalizer is None else normalizer.normalize_obs
    shown: dict[str, Any] = {key: show(value) for key, value in seen.items()}
    with undisturbed(policy, seed):
        next_actions = _actions(policy, shown["next_observations"], len(chosen), deterministic)
        start_actions = _actions(policy, shown["starts"], len(np.unique(starts)), deterministic)
    return PolicyRows(**columns, **shown, next_actions=next_actions, start_actions=start_actions)


def _actions(policy: Predicts, observations: Observations, count: int, deterministic: bool) -> np.ndarray:
    blocks = [slice(begin, begin + BLOCK) for begin in range(0, count, BLOCK)]
    return np.concatenate(
        [np.asarray(policy.predict(take(observations, block), deterministic=deterministic)[0]) for block in blocks]
    )


def _normalizer(policy: Any) -> Any:
    """The VecNormalize that a model of Stable-Baselines3 sees its environment through; None if there is none."""
    return policy.get_vec_normalize_env() if hasattr(policy, "get_vec_normalize_env") else None


@contextmanager
def undisturbed(policy: Any, seed: int) -> Iterator[None]:
    """Within this context random numbers follow the seed; afterwards all generators are as they were."""
    owner = getattr(policy, "policy", policy)
    own = getattr(owner, "generator", None)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    numpy_state = np.random.get_state()  # noqa: NPY002 - Policies of others may draw from it.
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        if own is not None and hasattr(owner, "seed"):
            owner.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            if own is not None:
                owner.generator = own


def as_inputs(dataset: TransitionDataset, observations: Observations, actions: np.ndarray) -> tuple[Tensor, Tensor]:
    """Flat observations `[N, O]` and actions in [-1, 1] `[N, A]`, as networks take them."""
    flat = flatten_arrays(dataset.observation_space, observations)
    return flat, as_tensor(scale_actions(dataset.action_space, actions))
