"""Episodes of a policy with their discounted returns, in the rewards that it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from flowpolicies.core import Noise
from flowpolicies.policies import FlowPolicy
from flowpolicies.policies.evaluation import LONG_EPISODE
from flowpolicies.samplers import Sampler
from flowpolicies.spaces.layout import flatten_tensors
from flowpolicies.tree import tree_map


class Rollouts(NamedTuple):
    """The first episode in each environment."""

    starts: Tensor
    """States in which the episodes began, `[N, O]`."""
    actions: Tensor
    """Actions (chunks) with which they began, `[N, A]`."""
    returns: np.ndarray
    """Discounted returns, `[N]`. Where a time limit cut an episode, the critics' value of its last state is added."""


def roll_out(
    policy: FlowPolicy,
    sampler: Sampler,
    env: VecEnv,
    gamma: float,
    noise: Noise,
    q: Callable[[Tensor, Tensor], Tensor] | None,
) -> Rollouts:
    """Runs one episode in each environment.

    Args:
        policy: the policy whose networks act.
        sampler: how they act.
        env: environments with the rewards that the policy was trained on.
        gamma: discount per environment step.
        noise: source of the noise of actions.
        q: values of actions, for the states in which a time limit cuts an episode; None: they count as 0.
    """
    n, device = env.num_envs, policy.device
    returns, discounts, running = np.zeros(n), np.ones(n), np.ones(n, bool)
    observations = env.reset()

    def plan(observations: Any) -> tuple[Tensor, Tensor]:
        tensor, _ = policy.obs_to_tensor(observations)
        flat = flatten_tensors(policy.observation_space, tensor)
        with torch.no_grad():
            return flat, sampler(policy.view(), flat, noise)

    begun = plan(observations)
    chunks = policy._to_space(begun[1].reshape(n, policy.horizon, -1))
    position = 0
    for _ in range(LONG_EPISODE):
        if position == policy.execute:
            chunks, position = policy._to_space(plan(observations)[1].reshape(n, policy.horizon, -1)), 0
        observations, rewards, dones, infos = env.step(chunks[:, position])
        position += 1
        returns += np.where(running, discounts * rewards, 0.0)
        discounts *= gamma
        for i in np.flatnonzero(dones & running):
            if infos[i].get("TimeLimit.truncated") and q is not None:
                flat, actions = plan(tree_map(lambda array: np.asarray(array)[None], infos[i]["terminal_observation"]))
                with torch.no_grad():
                    returns[i] += discounts[i] * float(q(flat, actions).mean())
        running &= ~dones
        if not running.any():
            break
    return Rollouts(begun[0].to(device), begun[1].to(device), returns)
