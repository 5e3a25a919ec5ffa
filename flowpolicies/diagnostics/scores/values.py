"""Scores by critics: those of a model, or those of a fitted Q evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from flowpolicies.data import TransitionDataset
from flowpolicies.diagnostics.evidence import Evidence, NotMeasurable
from flowpolicies.diagnostics.scores.rows import PolicyRows, policy_rows
from flowpolicies.policies.evaluation import Predicts
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.spaces.layout import Observations, flatten_tensors, scale_actions

Critics = Callable[[Observations, np.ndarray], np.ndarray]
"""(observations `[N, *shape]`, actions `[N, *A]` in the units of the space) -> values of all critics `[E, N]`."""

ROWS = 10_000
"""Number of transitions that a TD error is measured on."""


def critics_of(model: Any) -> Critics:
    """The critics of a model of this package, or of an actor-critic of Stable-Baselines3, such as SAC and TD3.

    Raises:
        ValueError: if it has none, or values of action chunks, which single actions do not have.
    """
    if isinstance(model, OfflineAlgorithm):
        return _own_critics(model)
    if isinstance(model, BaseAlgorithm) and hasattr(model, "critic"):
        return _critics_of_sb3(model)
    raise ValueError(
        f"{type(model).__name__} has no critics of actions that are known here. Fit some: fitted_q_evaluation(policy, "
        "dataset), or ScoreCallback(..., fit=True)."
    )


def _own_critics(model: OfflineAlgorithm) -> Critics:
    if model.policy.horizon > 1:
        raise ValueError(
            f"the critics of {type(model).__name__} value chunks of {model.policy.horizon} actions, not single ones. "
            "Fit others: fitted_q_evaluation(model, dataset), or ScoreCallback(..., fit=True)."
        )
    evidence = Evidence(model)
    try:
        q = evidence.q
    except NotMeasurable as reason:
        raise ValueError(f"{reason}. Fit them: fitted_q_evaluation(model, dataset).") from None

    def values(observations: Observations, actions: np.ndarray) -> np.ndarray:
        tensor, _ = model.policy.obs_to_tensor(observations)  # type: ignore[arg-type]  # Arrays of any kind.
        flat = flatten_tensors(model.policy.observation_space, tensor)
        scaled = torch.as_tensor(scale_actions(model.action_space, actions), device=model.device)
        with torch.no_grad():
            return q(flat, scaled).float().cpu().numpy()

    return values


def _critics_of_sb3(model: BaseAlgorithm) -> Critics:
    critic: Any = model.critic  # type: ignore[attr-defined]  # Actor-critics have one.

    def values(observations: Observations, actions: np.ndarray) -> np.ndarray:
        tensor, _ = model.policy.obs_to_tensor(observations)  # type: ignore[arg-type]  # Arrays of any kind.
        scaled = torch.as_tensor(model.policy.scale_action(actions), dtype=torch.float32, device=model.device)
        model.policy.set_training_mode(False)
        with torch.no_grad():
            found: np.ndarray = torch.stack(critic(tensor, scaled)).squeeze(-1).cpu().numpy()
            return found

    return values


def initial_value(
    policy: Predicts, dataset: TransitionDataset, critics: Critics | None = None, *, seed: int = 0
) -> float:
    """Mean value of the policy's actions in the states where episodes of a dataset begin.

    Args:
        policy: anything with Stable-Baselines3's `predict`.
        dataset: the transitions.
        critics: their values; None: those of the policy, see `critics_of`.
        seed: seed of the policy's noise.
    """
    found = policy_rows(policy, dataset, 1, seed=seed)
    return float((critics or critics_of(policy))(found.starts, found.start_actions).mean())


def td_error(
    policy: Predicts,
    dataset: TransitionDataset,
    critics: Critics | None = None,
    *,
    gamma: float | None = None,
    rows: int = ROWS,
    seed: int = 0,
) -> float:
    """Mean squared error of Q(s, a) against r + gamma Q(s', a'), a' the policy's action, at transitions of a dataset.

    Args:
        policy: anything with Stable-Baselines3's `predict`.
        dataset: the transitions, held-out ones if you can.
        critics: their values; None: those of the policy, see `critics_of`.
        gamma: discount per step; None: that of the policy, or 0.99 if it has none.
        rows: largest number of transitions.
        seed: seed of the transitions and of the policy's noise.
    """
    found = policy_rows(policy, dataset, rows, seed=seed)
    return errors(found, critics or critics_of(policy), discount_of(policy) if gamma is None else gamma)


def errors(found: PolicyRows, critics: Critics, gamma: float) -> float:
    """Mean squared TD error of rows."""
    following = critics(found.next_observations, found.next_actions).mean(0)
    target = found.rewards + gamma * found.masks * following
    return float(np.square(critics(found.observations, found.actions).mean(0) - target).mean())


def discount_of(policy: Any) -> float:
    """Discount per step that a model was trained with; 0.99 if it has none."""
    return float(getattr(policy, "gamma", 0.99))
