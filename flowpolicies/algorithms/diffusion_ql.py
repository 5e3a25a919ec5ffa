"""Diffusion-QL: a diffusion policy that climbs Q by backpropagation through its denoising.

Wang, Hunt, Zhou, "Diffusion Policies as an Expressive Policy Class for Offline Reinforcement Learning",
https://arxiv.org/abs/2208.06193
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.flows import BetaSchedule, Diffusion
from flowpolicies.losses import best_next_value, denoising, maximize_either_q, regress_critic
from flowpolicies.samplers import Denoise, Sampler
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import BackpropagatedConfig


@final
@dataclass(frozen=True, kw_only=True)
class DiffusionQLConfig(BackpropagatedConfig):
    """Hyperparameters of Diffusion-QL."""

    diffusion_steps: int = 5
    """Number T of noise levels of the diffusion, and so of network calls per action."""
    beta_schedule: BetaSchedule = "vp"
    """Noise schedule of the diffusion: how noise grows with the level."""

    def actor(self) -> Sampler:
        return Denoise(steps=self.diffusion_steps, schedule=self.beta_schedule, first_index=0, rule="posterior")

    def networks(self, tau: float) -> dict[str, Network]:
        return self.backpropagated_networks(tau, "actor_diffusion")


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: DiffusionQLConfig) -> Loss:
    """sum_e (Q_e(s, a) - r - gamma min_e Qbar_e(s', a'))^2, a' from the slow actor."""
    next_q = best_next_value(nets, batch, noise, cfg.actor(), cfg.max_q_backup, cfg.q_agg, cfg.rho)
    loss, metrics = regress_critic(nets, batch, batch.rewards + batch.discounts * next_q)
    # As in the authors' code, the sum over the critics: it matters where the gradient is clipped
    # (docs/algorithms/diffusion_ql.md, "Where code and paper differ").
    return cfg.ensemble * loss, metrics


@loss_term(trains="actor_diffusion")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: DiffusionQLConfig) -> Loss:
    """|eps_hat(s, x_t, t) - eps|^2 - eta Q_i(s, a) / |Q_j|, with gradient through every step of the sampler."""
    diffusion = Diffusion(cfg.diffusion_steps, cfg.beta_schedule, 0)
    bc_loss = denoising(nets.online.actor_diffusion, batch, noise, diffusion)
    actions = cfg.actor()(nets.online, batch.observations, noise)
    q_loss = maximize_either_q(nets, batch, actions, noise)
    return bc_loss + cfg.eta * q_loss, {"bc_loss": bc_loss, "q_loss": q_loss}


@final
class DiffusionQL(OfflineAlgorithm):
    """Diffusion-QL: a diffusion policy that clones the data and climbs Q by backpropagation through its denoising.

    Examples:
        >>> from flowpolicies import DiffusionQL
        >>> model = DiffusionQL(dataset="pendulum:mixed", eta=0.5, max_q_backup=True, num_samples=10, seed=0)
        >>> model.learn_offline(1_000).policy.save("diffusion_ql.safetensors")
    """

    name = "diffusion_ql"
    family = "diffusion"
    Config = DiffusionQLConfig
    losses = (critic_loss, actor_loss)
    parity = ("diffusion_ql_a",)
    # As in the authors' code, the trained actor proposes and the slow critics choose.
    act_with = explore_with = ("critic",)
