"""CAC, consistency actor-critic: a policy of one or two network calls that climbs Q by backpropagation through them.

Ding, Jin, "Consistency Models as a Rich and Efficient Policy Class for Reinforcement Learning",
https://arxiv.org/abs/2309.16984
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.flows import consistency_function, curriculum, random_neighbors
from flowpolicies.losses import best_next_value, maximize_either_q, regress_critic
from flowpolicies.samplers import Consistency, Sampler
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import BackpropagatedConfig


@final
@dataclass(frozen=True, kw_only=True)
class CACConfig(BackpropagatedConfig):
    """Hyperparameters of CAC."""

    consistency_steps: int = 2
    """Number T of noise levels at which acting calls the network (the authors use 2, and 5 on two tasks)."""
    q_norm: bool = False
    """Whether TD targets are divided by their standard deviation over the batch."""
    curriculum_steps: int = 50_000
    """Number of updates in which the noise levels grow from 2 to 150, before they start again from 2."""

    def actor(self) -> Sampler:
        return Consistency(steps=self.consistency_steps)

    def networks(self, tau: float) -> dict[str, Network]:
        return self.backpropagated_networks(tau, "actor_onestep")


def consistency_loss(nets: Networks, batch: Batch, noise: Noise, levels: Tensor) -> Tensor:
    """mean valid 100 / (sigma' - sigma) |f(s, a + sigma' z, sigma') - fbar(s, a + sigma z, sigma)|^2, a scalar.

    sigma < sigma' are the noise levels n and n + 1, and z is one draw for both.

    Args:
        levels: number of noise levels, `[]`; n is uniform over 0..levels - 2.
    """
    less, more = random_neighbors(noise, batch.rewards.shape, levels)
    z = noise.actions(batch.rewards.shape)
    online, slow = (view.actor_onestep.given(batch.observations) for view in (nets.online, nets.target))
    student = consistency_function(online, batch.actions + more * z, more)
    teacher = consistency_function(slow, batch.actions + less * z, less)
    # As in the authors' code, the weight is always on (docs/algorithms/cac.md, "Where code and paper differ").
    error = (100 / (more - less) * (student - teacher).square()).mean(-1)
    return (batch.valid * error).mean()


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: CACConfig) -> Loss:
    """sum_e (Q_e(s, a) - y)^2, y = r + gamma min_e Qbar_e(s', a'), a' from the slow actor."""
    next_q = best_next_value(nets, batch, noise, cfg.actor(), cfg.max_q_backup, cfg.q_agg, cfg.rho)
    target = batch.rewards + batch.discounts * next_q
    if cfg.q_norm:
        target = target / (target.std() + 1e-6)
    loss, metrics = regress_critic(nets, batch, target)
    # As in the authors' code, the sum over the critics: it matters where the gradient is clipped.
    return cfg.ensemble * loss, metrics


@loss_term(trains="actor_onestep")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: CACConfig) -> Loss:
    """Consistency on the data - eta Q_i(s, a) / |Q_j|, with gradient through every step of the sampler."""
    levels = curriculum(nets.updates["actor_onestep"], cfg.curriculum_steps)
    bc_loss = consistency_loss(nets, batch, noise, levels)
    actions = cfg.actor()(nets.online, batch.observations, noise)
    q_loss = maximize_either_q(nets, batch, actions, noise)
    return bc_loss + cfg.eta * q_loss, {"bc_loss": bc_loss, "q_loss": q_loss, "levels": levels.float()}


@final
class CAC(OfflineAlgorithm):
    """Consistency actor-critic: a consistency policy that clones the data and climbs Q by backpropagation.

    Examples:
        >>> from flowpolicies import CAC
        >>> model = CAC(dataset="pendulum:mixed", eta=0.5, q_norm=True, consistency_steps=2, seed=0)
        >>> action, _ = model.learn_offline(1_000).predict(model.observation_space.sample())  # two network calls
    """

    family = "diffusion"
    Config = CACConfig
    losses = (critic_loss, actor_loss)
    parity = ("cac_a", "cac_qnorm_a")
    # As in the authors' code, the trained actor proposes and the slow critics choose
    # (docs/algorithms/cac.md, "Where code and paper differ").
    act_with = explore_with = ("critic",)
