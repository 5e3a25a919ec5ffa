"""Classifier-guided Q-learning: a behaviour flow guided by the critic's gradient, when acting and in TD targets.

Baselines of Li, Levine, "Q-learning with Adjoint Matching", https://arxiv.org/abs/2601.14234
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.losses import flow_matching_loss, td_loss
from flowpolicies.samplers import ClassifierGuided, Sampler, best_of
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, velocity


@dataclass(frozen=True, kw_only=True)
class GuidedConfig(CriticConfig):
    """Abstract: hyperparameters that CGQL, CGQL-M and CGQL-L share."""

    critic_time: ClassVar[Literal["final", "current"]] = "current"
    ensemble: int = 10
    """Number K of critics."""
    rho: float = 0.5
    """Pessimism rho of the TD target: mean - rho * std over the critics (the authors use 0 on humanoidmaze)."""
    inv_temp: float = 1.0
    """Inverse temperature kappa: the policy aims at behaviour times exp(kappa Q). The authors use 10."""
    guidance_coef: float = 0.1
    """Strength c of the guidance; at 0 the policy is the behaviour flow (the authors use 0.01 to 1)."""
    flow_steps: int = 10
    """Number of Euler steps of the guided flow."""
    best_of_n: int = 1
    """Number of candidates per action, when acting and in TD targets; the critics' mean chooses the best."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"critic": critic(self, tau, time_embedding="scalar"), "actor_flow": velocity(self, tau)}

    def sampler(self) -> Sampler:
        guided = ClassifierGuided(
            "actor_flow", "critic", self.flow_steps, self.inv_temp, self.guidance_coef, critic_time=self.critic_time
        )
        return best_of(guided, self.best_of_n, at=1.0)


@final
@dataclass(frozen=True, kw_only=True)
class CGQLConfig(GuidedConfig):
    """Hyperparameters of CGQL."""

    # As in QAM's code, noisy actions count as clean ones (docs/algorithms/cgql.md, "Where code and paper differ").
    critic_time: ClassVar = "final"


@final
@dataclass(frozen=True, kw_only=True)
class CGQLMConfig(GuidedConfig):
    """Hyperparameters of CGQL-M."""

    noisy_coef: float = 0.001
    """Weight of the critic's loss on noisy actions (the authors use 0.001 or 0.1)."""


@final
@dataclass(frozen=True, kw_only=True)
class CGQLLConfig(GuidedConfig):
    """Hyperparameters of CGQL-L."""

    noisy_coef: float = 0.001
    """Weight of the critic's loss on noisy actions (the authors use 0.001 or 0.1)."""
    isd_clip: float = 5.0
    """Largest scaled error that enters the exponential; above it the loss is the error itself."""


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: GuidedConfig) -> Loss:
    """(Q(s, a, 1) - r - gamma Qbar(s', a', 1))^2, a' from the slow flow, guided by the trained critic."""
    acting = nets.frozen | {"actor_flow": nets.target.actor_flow}
    next_actions = cfg.sampler()(acting, batch.next_observations, noise)
    return td_loss(nets, batch, next_actions, cfg.q_agg, cfg.rho, torch.ones_like(batch.rewards)[:, None])


def noisy_values(nets: Networks, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
    """Q(s, x_t, t) at a random point of the path to each action, and its target Qbar(s, a, 1), both `[E, B]`."""
    t, x_0 = noise.times(batch.rewards.shape), noise.actions(batch.rewards.shape)
    noisy = nets.online.critic(batch.observations, (1 - t) * x_0 + t * batch.actions, t)
    return noisy, nets.target.critic(batch.observations, batch.actions, torch.ones_like(t))


@loss_term(trains="critic")
def noisy_mse_loss(nets: Networks, batch: Batch, noise: Noise, cfg: CGQLMConfig) -> Loss:
    """w (Q(s, x_t, t) - Qbar(s, a, 1))^2: a noisy action is worth the mean over the actions that it may come from."""
    noisy, clean = noisy_values(nets, batch, noise)
    error = (batch.valid * (noisy - clean).square()).mean()
    return cfg.noisy_coef * error, {"error": error}


def linex(noisy: Tensor, clean: Tensor, inv_temp: float, clip: float) -> Tensor:
    """exp(d) + kappa q where d = kappa (q_clean - q) <= clip, and d above; element by element."""
    delta = inv_temp * (clean - noisy)
    # As in QAM's code, value and slope jump at the clip (docs/algorithms/cgql_l.md, "Where code and paper differ").
    # Clamped, because an exponential that overflows has no gradient even where it is not selected.
    return torch.where(delta > clip, delta, delta.clamp(max=clip).exp() + inv_temp * noisy)


@loss_term(trains="critic")
def noisy_linex_loss(nets: Networks, batch: Batch, noise: Noise, cfg: CGQLLConfig) -> Loss:
    """w linex(Q(s, x_t, t), Qbar(s, a, 1)): least at Q = log mean exp(kappa Qbar) / kappa, without the clip."""
    noisy, clean = noisy_values(nets, batch, noise)
    error = (batch.valid * linex(noisy, clean, cfg.inv_temp, cfg.isd_clip)).mean()
    clipped = (cfg.inv_temp * (clean - noisy) > cfg.isd_clip).to(error.dtype).mean()
    return cfg.noisy_coef * error, {"error": error, "clipped": clipped}


@final
class CGQL(OfflineAlgorithm):
    """Classifier-guided Q-learning with a critic trained on clean actions only.

    Examples:
        >>> from dataclasses import replace
        >>> from flowpolicies import CGQL
        >>> model = CGQL(dataset="pendulum:mixed", inv_temp=10.0, guidance_coef=0.1, seed=0).learn_offline(1_000)
        >>> model.policy.sampler = replace(model.policy.sampler, guidance_coef=0.5)  # more guidance, without training
    """

    family = "guided"
    Config = CGQLConfig
    losses = (critic_loss, flow_matching_loss)
    parity = ("cgql_a",)
    act_with = explore_with = ("actor_flow",)


@final
class CGQLM(OfflineAlgorithm):
    """Classifier-guided Q-learning with a critic also trained on noisy actions, by mean squares.

    Examples:
        >>> from flowpolicies import CGQLM
        >>> model = CGQLM(dataset="pendulum:mixed", noisy_coef=0.1, seed=0).learn_offline(1_000)
        >>> model.cfg.noisy_coef
        0.1
    """

    name = "cgql_m"
    family = "guided"
    Config = CGQLMConfig
    losses = (critic_loss, noisy_mse_loss, flow_matching_loss)
    parity = ("cgql_mse_a",)
    act_with = explore_with = ("actor_flow",)


@final
class CGQLL(OfflineAlgorithm):
    """Classifier-guided Q-learning with a critic also trained on noisy actions, by a linear-exponential loss.

    Examples:
        >>> from flowpolicies import CGQLL
        >>> model = CGQLL(dataset="pendulum:mixed", noisy_coef=0.1, isd_clip=3.0, best_of_n=4, seed=0)
        >>> model.learn_offline(1_000).policy.save("cgql_l.safetensors")
    """

    name = "cgql_l"
    family = "guided"
    Config = CGQLLConfig
    losses = (critic_loss, noisy_linex_loss, flow_matching_loss)
    parity = ("cgql_linex_a",)
    act_with = explore_with = ("actor_flow",)
