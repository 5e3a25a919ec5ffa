"""Implicit Q-learning: values without sampled actions.

Kostrikov, Nair, Levine, "Offline Reinforcement Learning with Implicit Q-Learning", https://arxiv.org/abs/2110.06169
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowpolicies.core.types import Batch, Loss
from flowpolicies.core.views import Networks
from flowpolicies.losses.td import QAggregation, aggregate, regress_critic


def expectile(difference: Tensor, level: float) -> Tensor:
    """|level - 1(u < 0)| u^2 for u = target - prediction, element by element."""
    return torch.where(difference < 0, 1 - level, level).to(difference) * difference.square()


def iql_value_loss(nets: Networks, batch: Batch, level: float, q_agg: QAggregation, rho: float) -> Loss:
    """mean_b L_level(agg_e Qbar_e(s, a) - V(s)). Trains `value`."""
    # As in the code of FQL and QAM, rows are not weighted by `valid`
    # (docs/algorithms/ifql.md, "Where code and paper differ").
    q = aggregate(nets.target.critic(batch.observations, batch.actions), q_agg, rho)
    v = nets.online.value(batch.observations)
    return expectile(q - v, level).mean(), {"v_mean": v.mean(), "v_max": v.max(), "v_min": v.min()}


def iql_critic_loss(nets: Networks, batch: Batch) -> Loss:
    """`regress_critic` onto y = r + discount * V(s'), with the current value network. Trains `critic`."""
    return regress_critic(nets, batch, batch.rewards + batch.discounts * nets.frozen.value(batch.next_observations))


def advantage_weights(advantages: Tensor, inv_temp: float) -> Tensor:
    """min(exp(inv_temp A), 100): the weight of an action of the data in behaviour cloning."""
    return (inv_temp * advantages).exp().clamp(max=100.0)
