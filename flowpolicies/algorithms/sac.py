"""Soft actor-critic, and RLPD: SAC on batches of which half is prior data.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", https://arxiv.org/abs/1812.05905, in the form of FQL's
code; Ball et al., "Efficient Online Reinforcement Learning with Offline Data", https://arxiv.org/abs/2302.02948, in the
form of QAM's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.losses import (
    QAggregation,
    aggregate,
    maximize_q,
    regress_critic,
    soft_policy_loss,
    squashed_log_prob,
    squashed_sample,
)
from flowpolicies.networks import Temperature
from flowpolicies.samplers import Sampler, TanhGaussian
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, gaussian


@dataclass(frozen=True, kw_only=True)
class SoftConfig(CriticConfig):
    """Abstract: hyperparameters that SAC and RLPD share."""

    uses_rho_with_min: ClassVar = True

    rho: float = 0.0
    """Pessimism rho in the actor's loss, and with q_agg="mean" in TD targets: mean - rho * std over the critics."""
    target_entropy_multiplier: float = 0.5
    """Target entropy of the policy: minus this number, times the dimension of the action (chunk)."""
    entropy_backup: float = 0.0
    """Weight of the entropy in TD targets: 1 is the paper's soft value, 0 the authors' choice with prior data."""
    bc_alpha: float = 0.0
    """Weight of behaviour cloning in the actor's loss; 0: no behaviour cloning."""


@final
@dataclass(frozen=True, kw_only=True)
class SACConfig(SoftConfig):
    """Hyperparameters of SAC."""

    q_agg: QAggregation = "min"
    """How the target critics become one value: minimum, or mean - rho * std, which the actor always climbs."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {
            "critic": critic(self, target_rate=tau),
            "actor": gaussian(self, state_dependent_std=True),
            "temperature": Network(Temperature),
        }

    def sampler(self) -> Sampler:
        return TanhGaussian(temperature=0.0)

    def explorer(self) -> Sampler:
        return TanhGaussian()


@final
@dataclass(frozen=True, kw_only=True)
class RLPDConfig(SoftConfig):
    """Hyperparameters of RLPD."""

    ensemble: int = 10
    """Number K of critics."""
    rho: float = 0.5
    """Pessimism rho in TD target and actor loss: mean - rho * std over critics (the authors use 0 on humanoidmaze)."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {
            "critic": critic(self, target_rate=tau),
            "actor": gaussian(self, state_dependent_std=True, head_scale=1.0, log_std_bounds=(-20.0, 2.0)),
            "temperature": Network(Temperature),
        }

    def sampler(self) -> Sampler:
        return TanhGaussian()


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: SoftConfig) -> Loss:
    """(Q(s, a) - r - gamma (agg Qbar(s', a') - entropy_backup alpha log pi(a' | s')))^2, a' ~ pi."""
    mean, log_std = nets.frozen.actor(batch.next_observations)
    next_actions, log_probs = squashed_sample((mean, log_std), noise.actions(batch.rewards.shape))
    next_q = aggregate(nets.target.critic(batch.next_observations, next_actions), cfg.q_agg, cfg.rho)
    next_value = next_q - cfg.entropy_backup * nets.frozen.temperature() * log_probs
    return regress_critic(nets, batch, batch.rewards + batch.discounts * next_value)


@loss_term(trains=("actor", "temperature"))
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: SoftConfig) -> Loss:
    """alpha log pi(a' | s) - (mean - rho std)_e Q_e(s, a') - bc_alpha log pi(a | s), a' ~ pi; alpha (H - H_target)."""
    mean, log_std = nets.online.actor(batch.observations)
    actions, log_probs = squashed_sample((mean, log_std), noise.actions(batch.rewards.shape))
    # As in the code of FQL and QAM, the actor climbs mean - rho * std of the critics, not their minimum
    # (docs/algorithms/sac.md, "Where code and paper differ").
    q_loss = maximize_q(nets, batch, actions, rho=cfg.rho)
    target_entropy = -cfg.target_entropy_multiplier * batch.actions.shape[-1]
    loss, metrics = soft_policy_loss(nets, q_loss, log_probs, target_entropy)
    bc_loss = -(batch.valid * squashed_log_prob((mean, log_std), batch.actions)).mean()
    return loss + cfg.bc_alpha * bc_loss, metrics | {"bc_loss": bc_loss}


@final
class SAC(OfflineAlgorithm):
    """Soft actor-critic, trained on the union of the dataset and online experience.

    Examples:
        >>> from flowpolicies import SAC
        >>> model = SAC("MlpPolicy", "Pendulum-v1", entropy_backup=1.0, seed=0).learn(5_000)
        >>> action, _ = model.predict(model.observation_space.sample(), deterministic=True)
    """

    family = "online"
    Config = SACConfig
    losses = (critic_loss, actor_loss)
    parity = ("sac_a",)


@final
class RLPD(OfflineAlgorithm):
    """Soft actor-critic with ten critics, online from the first step, on batches of which half is prior data.

    https://arxiv.org/abs/2302.02948

    Examples:
        >>> from flowpolicies import RLPD
        >>> model = RLPD("MlpPolicy", "Pendulum-v1", dataset="pendulum:mixed", seed=0)
        >>> result = model.learn(5_000).evaluate(episodes=2)  # no offline phase: prior data are half of each batch
    """

    family = "online"
    Config = RLPDConfig
    losses = (critic_loss, actor_loss)
    parity = ("rlpd_a",)
    offline_share = 0.5
