"""Temporal-difference learning with an ensemble."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flowpolicies.core.types import Batch, Loss
from flowpolicies.core.views import Networks, is_zero

QAggregation = Literal["mean", "min"]
"""How an ensemble becomes one value. mean: mean_e Q_e - rho std_e Q_e; min: min_e Q_e."""


SMALLEST_SIZE = 1e-12
"""Mean |Q| up to which values count as 0; their quotient would not be finite, or its gradient too large for Adam."""


def aggregate(q: Tensor, q_agg: QAggregation = "mean", rho: float = 0.0) -> Tensor:
    """One value from an ensemble, `[E, *]` -> `[*]`. The standard deviation is that of the population (ddof 0)."""
    if q_agg == "min":
        return q.amin(0)
    if is_zero(rho):
        return q.mean(0)
    return q.mean(0) - rho * q.std(0, correction=0)


def mean_size(q: Tensor) -> Tensor:
    """mean |Q| as a divisor, `[]`, without gradient; 1 where it is 0, which is every value of a new network without
    biases at a zero state and a zero action."""
    size = q.detach().abs().mean()
    return torch.where(size > SMALLEST_SIZE, size, torch.ones_like(size))


def regress_critic(nets: Networks, batch: Batch, target: Tensor, *times: Tensor) -> Loss:
    """mean_{e,b} valid_b (Q_e(s_b, a_b) - y_b)^2. Trains `critic`.

    Args:
        target: y `[B]`, without gradient.
        times: flow time `[B, 1]` of a critic that takes one.
    """
    q = nets.online.critic(batch.observations, batch.actions, *times)
    loss = (batch.valid * (q - target).square()).mean()
    return loss, {"q_mean": q.mean(), "q_max": q.max(), "q_min": q.min(), "target_mean": target.mean()}


def td_loss(
    nets: Networks, batch: Batch, next_actions: Tensor, q_agg: QAggregation = "mean", rho: float = 0.0, *times: Tensor
) -> Loss:
    """`regress_critic` onto y = r + discount * agg_e Qbar_e(s', a').

    Args:
        next_actions: a' `[B, A]`, without gradient.
        times: flow time `[B, 1]` of a critic that takes one.
    """
    next_q = aggregate(nets.target.critic(batch.next_observations, next_actions, *times), q_agg, rho)
    return regress_critic(nets, batch, batch.rewards + batch.discounts * next_q, *times)
