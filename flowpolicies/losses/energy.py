"""Policies proportional to behaviour times exp(beta Q), represented by a few actions per state: their support."""

from __future__ import annotations

import torch
from torch import Tensor

from flowpolicies.core.types import Batch, Loss
from flowpolicies.core.views import Networks
from flowpolicies.losses.td import QAggregation, aggregate, regress_critic
from flowpolicies.samplers import repeat


def support_weights(q: Tensor, inv_temp: float) -> Tensor:
    """exp(inv_temp q_j) / sum_k exp(inv_temp q_k): 1/M each, if all values are equal.

    Args:
        q: values of the M actions of each state, `[*, M]`.
    """
    return torch.softmax(inv_temp * q, -1)


def soft_value(q: Tensor, inv_temp: float) -> Tensor:
    """sum_j w_j q_j with the weights of the support, `[*]`: the value of the policy with these weights.

    Args:
        q: `[*, M]`.
    """
    return (support_weights(q, inv_temp) * q).sum(-1)


def soft_td_loss(
    nets: Networks, batch: Batch, next_actions: Tensor, inv_temp: float, q_agg: QAggregation = "mean", rho: float = 0.0
) -> Loss:
    """`regress_critic` onto y = r + discount * `soft_value` of q_j = agg_e Qbar_e(s', a'_j).

    Args:
        next_actions: M actions of each next state, `[B, M, A]`, without gradient.
    """
    next_q = nets.target.critic(repeat(batch.next_observations, next_actions.shape[-2]), next_actions)
    next_value = soft_value(aggregate(next_q, q_agg, rho), inv_temp)
    return regress_critic(nets, batch, batch.rewards + batch.discounts * next_value)


def contrastive_energy(energies: Tensor, q: Tensor, inv_temp: float) -> Tensor:
    """-sum_j w_j log softmax_j(f), `[*]`: minimal where f = inv_temp q up to a constant per state.

    Lu et al., "Contrastive Energy Prediction", https://arxiv.org/abs/2304.12824. With noise in the actions that f
    takes, the minimum is f = log E[exp(inv_temp Q(s, a)) | x_t], up to a constant.

    Args:
        energies: f of the M actions, each with noise of the same level, `[*, M]`, with gradient.
        q: values of the same actions without noise, `[*, M]`.
    """
    return -(support_weights(q, inv_temp) * torch.log_softmax(energies, -1)).sum(-1)
