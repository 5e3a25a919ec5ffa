"""Implicit Q-learning with a Gaussian policy, by advantage-weighted regression or by climbing Q.

Kostrikov, Nair, Levine, "Offline Reinforcement Learning with Implicit Q-Learning", https://arxiv.org/abs/2110.06169, in
the form of FQL's code. The second policy loss is DDPG+BC of Park et al., "Is Value Learning Really the Main Bottleneck
in Offline RL?", https://arxiv.org/abs/2406.09329
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.losses import (
    QAggregation,
    advantage_weights,
    aggregate,
    gaussian_log_prob,
    iql_critic_loss,
    iql_value_loss,
    maximize_q,
)
from flowpolicies.samplers import Gaussian, Sampler
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, gaussian, value
from flowpolicies.shell.fields import UnitInterval


@dataclass(frozen=True, kw_only=True)
class ImplicitConfig(CriticConfig):
    """Abstract: hyperparameters that both variants of IQL share."""

    q_agg: QAggregation = "min"
    """How the critics become one value, in the losses of V and policy: minimum, or mean - rho * std."""
    expectile: UnitInterval = 0.9
    """Level kappa of the expectile regression of V, in [0, 1): 0.5 is the mean, towards 1 the maximum over actions."""
    critic_weight: float = 2.0
    """Weight of the critic loss: 2 gives FQL's sum over two critics, 1 gives the mean."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"critic": critic(self, target_rate=tau), "value": value(self), "actor": gaussian(self)}

    def sampler(self) -> Sampler:
        return Gaussian(temperature=0.0)

    def explorer(self) -> Sampler:
        # As in FQL's code, the standard deviation is constant, 1: most online actions are at a bound
        # (docs/algorithms/iql.md, "Where code and paper differ").
        return Gaussian()


@final
@dataclass(frozen=True, kw_only=True)
class IQLConfig(ImplicitConfig):
    """Hyperparameters of IQL."""

    alpha: float = 10.0
    """Inverse temperature of the advantage weights, the paper's beta; 0 is behaviour cloning."""


@final
@dataclass(frozen=True, kw_only=True)
class IQLDDPGBCConfig(ImplicitConfig):
    """Hyperparameters of IQL with DDPG+BC."""

    alpha: float = 10.0
    """Weight of behaviour cloning against Q, which is divided by mean |Q|."""


@loss_term(trains="value")
def value_loss(nets: Networks, batch: Batch, noise: Noise, cfg: ImplicitConfig) -> Loss:
    """L_kappa(agg Qbar(s, a) - V(s))."""
    return iql_value_loss(nets, batch, cfg.expectile, cfg.q_agg, cfg.rho)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: ImplicitConfig) -> Loss:
    """(Q(s, a) - r - gamma V(s'))^2."""
    loss, metrics = iql_critic_loss(nets, batch)
    return cfg.critic_weight * loss, metrics


@loss_term(trains="actor")
def awr_loss(nets: Networks, batch: Batch, noise: Noise, cfg: IQLConfig) -> Loss:
    """-min(exp(alpha (agg Q(s, a) - V(s))), 100) log N(a; mu(s), I)."""
    q = aggregate(nets.frozen.critic(batch.observations, batch.actions), cfg.q_agg, cfg.rho)
    advantages = q - nets.frozen.value(batch.observations)
    mean, log_std = nets.online.actor(batch.observations)
    log_probs = gaussian_log_prob((mean, log_std), batch.actions)
    loss = -(batch.valid * advantage_weights(advantages, cfg.alpha) * log_probs).mean()
    return loss, {"advantage": advantages.mean(), "log_prob": log_probs.mean()}


@loss_term(trains="actor")
def ddpgbc_loss(nets: Networks, batch: Batch, noise: Noise, cfg: IQLDDPGBCConfig) -> Loss:
    """-agg Q(s, clip(mu(s))) / mean |Q| - alpha log N(a; mu(s), I)."""
    mean, log_std = nets.online.actor(batch.observations)
    q_loss = maximize_q(nets, batch, mean, normalize=True, q_agg=cfg.q_agg, rho=cfg.rho)
    log_probs = gaussian_log_prob((mean, log_std), batch.actions)
    loss = q_loss - cfg.alpha * (batch.valid * log_probs).mean()
    return loss, {"q_loss": q_loss, "log_prob": log_probs.mean()}


@final
class IQL(OfflineAlgorithm):
    """Implicit Q-learning: expectile values, and a Gaussian cloned with advantage weights.

    Examples:
        >>> from flowpolicies import IQL
        >>> model = IQL(dataset="pendulum:mixed", expectile=0.9, alpha=3.0, seed=0).learn_offline(1_000)
        >>> action, _ = model.predict(model.observation_space.sample(), deterministic=True)
    """

    family = "gaussian"
    Config = IQLConfig
    losses = (value_loss, critic_loss, awr_loss)
    parity = ("iql_a",)


@final
class IQLDDPGBC(OfflineAlgorithm):
    """Implicit Q-learning with a Gaussian policy that clones the data and climbs Q.

    The policy loss is that of https://arxiv.org/abs/2406.09329.

    Examples:
        >>> from flowpolicies import IQLDDPGBC
        >>> model = IQLDDPGBC(dataset="pendulum:mixed", expectile=0.7, alpha=3.0, seed=0)
        >>> model.learn_offline(1_000).policy.save("iql.safetensors")
    """

    name = "iql_ddpgbc"
    family = "gaussian"
    Config = IQLDDPGBCConfig
    losses = (value_loss, critic_loss, ddpgbc_loss)
    parity = ("iql_multi_a",)
