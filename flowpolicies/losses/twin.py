"""What Diffusion-QL and CAC share: two critics, and an actor that climbs one of them through its whole sampler."""

from __future__ import annotations

import torch
from torch import Tensor

from flowpolicies.core.noise import Draw, Noise
from flowpolicies.core.types import Batch
from flowpolicies.core.views import Networks
from flowpolicies.losses.td import QAggregation, aggregate
from flowpolicies.samplers import Sampler, repeat

BACKUP_ACTIONS = 10
"""Next actions of which a target takes the best."""


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

    Each critic takes the largest of its own values before they become one.

    Args:
        actor: how actions come out of the slow networks.
        max_q_backup: whether i runs to 10; otherwise there is one a'.
    """
    observations = repeat(batch.next_observations, BACKUP_ACTIONS if max_q_backup else 1)
    q = nets.target.critic(observations, actor(nets.target, observations, noise))
    return aggregate(q.amax(-1), q_agg, rho)


def maximize_either_q(nets: Networks, batch: Batch, actions: Tensor, noise: Noise) -> Tensor:
    """-mean_b Q_i(s, a) / mean_b |Q_j(s, a)|, a scalar; a coin decides which of two critics is i.

    The divisor is constant. A clipped action gets no gradient where it saturates.

    Args:
        actions: `[B, A]`, with gradient to the actor.

    Raises:
        ValueError: if there are not two critics.
    """
    q = nets.frozen.critic(batch.observations, actions)
    if q.shape[0] != 2:
        raise ValueError(f"the actor's loss divides one critic by the size of the other: ensemble=2, got {q.shape[0]}")
    heads = noise.draw(Draw("uniform", ())) < 0.5
    climbed, other = torch.where(heads, q, q.flip(0)).unbind()
    return -climbed.mean() / other.abs().mean().detach()
