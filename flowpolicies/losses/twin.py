"""Losses that Diffusion-QL and CAC share: two critics, and an actor that climbs one of them through its whole
sampler."""

from __future__ import annotations

import torch
from torch import Tensor

from flowpolicies.core.noise import Draw, Noise
from flowpolicies.core.types import Batch
from flowpolicies.core.views import Networks
from flowpolicies.losses.td import QAggregation, aggregate, mean_size
from flowpolicies.samplers import Sampler, repeat

BACKUP_ACTIONS = 10
"""Number of next actions of which a TD target takes the best."""


def best_next_value(
    nets: Networks,
    batch: Batch,
    noise: Noise,
    actor: Sampler,
    max_q_backup: bool,
    q_agg: QAggregation = "min",
    rho: float = 0.0,
) -> Tensor:
    """agg_e max_i Qbar_e(s', a'_i), `[B]`, without gradient; a'_i from the slow actor.

    Each critic takes the largest of its own values, before the critics become one value.

    Args:
        actor: the sampler of next actions, called on the slow networks.
        max_q_backup: whether there are 10 next actions; otherwise there is one.
    """
    observations = repeat(batch.next_observations, BACKUP_ACTIONS if max_q_backup else 1)
    q = nets.target.critic(observations, actor(nets.target, observations, noise))
    return aggregate(q.amax(-1), q_agg, rho)


def maximize_either_q(nets: Networks, batch: Batch, actions: Tensor, noise: Noise) -> Tensor:
    """-mean_b Q_i(s, a) / mean_b |Q_j(s, a)|, a scalar; a coin decides which of two critics is i.

    The divisor is constant. Clipped coordinates of an action get no gradient.

    Args:
        actions: `[B, A]`, with gradient to the actor.

    Raises:
        ValueError: if there are not two critics.
    """
    q = nets.frozen.critic(batch.observations, actions)
    if q.shape[0] != 2:
        raise ValueError(f"the actor's loss divides one critic by the other: set ensemble=2, got {q.shape[0]}")
    heads = noise.draw(Draw("uniform", ())) < 0.5
    climbed, other = torch.where(heads, q, q.flip(0)).unbind()
    return -climbed.mean() / mean_size(other)
