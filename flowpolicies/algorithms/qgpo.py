"""QGPO: a behaviour diffusion guided by the gradient of a learnt energy of noisy actions.

Lu et al., "Contrastive Energy Prediction for Exact Energy-Guided Diffusion Sampling in Offline Reinforcement Learning",
https://arxiv.org/abs/2304.12824
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, final

from torch import Tensor

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, UpdateSpec, loss_term
from flowpolicies.flows import noise_level, trained_times
from flowpolicies.losses import QAggregation, aggregate, contrastive_energy, soft_td_loss
from flowpolicies.networks import NoisyValue, UNet
from flowpolicies.samplers import DPMSolver, EnergyGuided, Sampler, repeat
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic
from flowpolicies.shell.fields import NonNegativeInt


@final
@dataclass(frozen=True, kw_only=True)
class QGPOConfig(CriticConfig):
    """Hyperparameters of QGPO."""

    actor_hidden_dims: tuple[int, ...] = (512, 256, 128)
    """Widths of the behaviour's U-net, from the outermost block to the innermost."""
    value_hidden_dims: tuple[int, ...] = (256, 256, 256)
    """Hidden widths of the critics."""
    value_layer_norm: bool = False
    """Whether the critics have LayerNorm after each activation."""
    energy_hidden_dims: tuple[int, ...] = (256, 256, 256, 256)
    """Hidden widths of the energy network."""
    q_agg: QAggregation = "min"
    """How the target critics become one value: their minimum, or their mean minus rho standard deviations."""
    alpha: float = 3.0
    """Inverse temperature of the policy, which aims at behaviour times exp(alpha Q)."""
    q_alpha: float = 1.0
    """Inverse temperature of the softmax over next actions in TD targets."""
    guidance_scale: float = 1.0
    """Strength s_g of the guidance: 0 gives the behaviour, 1 the policy that the energy is trained for (up to 10)."""
    num_samples: int = 16
    """Number M of actions per state, sampled from the behaviour (the authors use 16, and 32 on antmaze)."""
    solver_steps: int = 15
    """Number of network evaluations of the solver when acting; odd numbers such as 15 or 41 are more accurate."""
    support_steps: int = 15
    """Number of network evaluations of the solver for each of the M actions; fewer make updates faster."""
    pretrain_steps: NonNegativeInt = 600_000
    """Number of updates of the behaviour diffusion alone, at the beginning of training."""
    critic_steps: NonNegativeInt = 500_000
    """Number of updates of critic and energy after the pretraining; from then on only the energy is trained."""
    actor_learning_rate: float | None = 1e-4
    """Learning rate of the behaviour; None: the common learning_rate."""

    def networks(self, tau: float) -> dict[str, Network]:
        time: dict[str, Any] = {"time_embedding": "gaussian_fourier", "time_dim": 32, "time_hidden_dims": (32,)}
        body: dict[str, Any] = {"activation": "silu", "initialization": "torch"}
        energy = partial(NoisyValue, hidden_dims=self.energy_hidden_dims, **body, **time)
        behavior = Network(partial(UNet, hidden_dims=self.actor_hidden_dims), learning_rate=self.actor_learning_rate)
        return {
            "actor_diffusion": behavior,
            "critic": critic(self, tau, activation="relu", initialization="torch"),
            "inner_value": Network(energy),
        }

    def sampler(self) -> Sampler:
        return EnergyGuided(guidance_scale=self.guidance_scale, steps=self.solver_steps)

    def update_spec(self, step: int) -> UpdateSpec:
        """First the behaviour alone; then critic and energy, on samples of the behaviour; then the energy alone."""
        if step < self.pretrain_steps:
            return UpdateSpec((("behavior",),), (), targets_first=False)
        if step < self.pretrain_steps + self.critic_steps:
            return UpdateSpec((("critic",), ("energy",)), targets_first=False)
        return UpdateSpec((("energy",),), (), targets_first=False)


def sample_support(nets: Networks, observations: Tensor, noise: Noise, cfg: QGPOConfig) -> Tensor:
    """M actions of each state from the unguided behaviour, `[B, M, A]`."""
    # Deviation: the authors sample the frozen behaviour once per state and store it; we sample in every update
    # (docs/algorithms/qgpo.md, "Where code and paper differ").
    return DPMSolver(steps=cfg.support_steps)(nets.frozen, repeat(observations, cfg.num_samples), noise)


@loss_term(trains="actor_diffusion")
def behavior_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QGPOConfig) -> Loss:
    """sum_i (eps_hat(s, x_t, t) - z)_i^2, x_t = alpha(t) a + sigma(t) z."""
    t, z = trained_times(noise.times(batch.rewards.shape)), noise.actions(batch.rewards.shape)
    level = noise_level(t)
    eps = nets.online.actor_diffusion(batch.observations, level.alpha * batch.actions + level.sigma * z, t)
    return (batch.valid * (eps - z).square().sum(-1)).mean(), {}


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QGPOConfig) -> Loss:
    """(Q(s, a) - r - gamma sum_j w_j Qbar(s', a'_j))^2, w = softmax(q_alpha Qbar(s', a')) over the support."""
    actions = sample_support(nets, batch.next_observations, noise, cfg)
    return soft_td_loss(nets, batch, actions, cfg.q_alpha, cfg.q_agg, cfg.rho)


@loss_term(trains="inner_value")
def energy_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QGPOConfig) -> Loss:
    """-sum_j softmax_j(alpha Qbar(s, a_j)) log softmax_j f(s, x_t^j, t): one t for the M actions, noise for each."""
    observations = repeat(batch.observations, cfg.num_samples)
    actions = sample_support(nets, batch.observations, noise, cfg)
    q = aggregate(nets.target.critic(observations, actions), cfg.q_agg, cfg.rho)
    t = repeat(trained_times(noise.times(batch.rewards.shape)), cfg.num_samples)
    level, z = noise_level(t), noise.actions(actions.shape[:-1])
    f = nets.online.inner_value(observations, level.alpha * actions + level.sigma * z, t)
    return contrastive_energy(f, q, cfg.alpha).mean(), {"q_spread": q.std(-1, correction=0).mean()}


@final
class QGPO(OfflineAlgorithm):
    """Q-guided policy optimisation: behaviour diffusion, guided by a contrastive energy's gradient when acting.

    Examples:
        >>> from flowpolicies import QGPO
        >>> from flowpolicies.samplers import EnergyGuided
        >>> model = QGPO(dataset="pendulum:mixed", pretrain_steps=5_000, critic_steps=5_000).learn_offline(15_000)
        >>> model.policy.sampler = EnergyGuided(guidance_scale=3.0)  # more guidance, without training
    """

    family = "diffusion"
    Config = QGPOConfig
    losses = (behavior_loss, critic_loss, energy_loss)
    parity = ("qgpo_a", "qgpo_even_a")
