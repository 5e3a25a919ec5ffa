"""QIPO: behaviour cloning with a flow, weighted by exp(beta Q) over a few actions per state.

Zhang et al., "Energy-Weighted Flow Matching for Offline Reinforcement Learning", https://arxiv.org/abs/2503.04975
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, UpdateSpec, View, loss_term
from flowpolicies.losses import aggregate, flow_matching, flow_matching_loss, soft_td_loss, support_weights
from flowpolicies.samplers import Integrate, Sampler, repeat
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, velocity
from flowpolicies.shell.fields import NonNegativeInt


@dataclass(frozen=True, kw_only=True)
class SupportConfig(CriticConfig):
    """Abstract: hyperparameters that both forms of QIPO share."""

    support: ClassVar[Literal["frozen", "target"]]
    """Flow that the M actions are sampled from: the policy, or its slow copy, the policy of the last renewal."""

    beta: float = 1.0
    """Inverse temperature of the policy, which aims at behaviour times exp(beta Q)."""
    num_samples: int = 4
    """Number M of sampled actions per state, besides the action of the data."""
    flow_steps: int = 10
    """Number of Euler steps of the flow."""


@final
@dataclass(frozen=True, kw_only=True)
class QIPOConfig(SupportConfig):
    """Hyperparameters of QIPO's data-only form."""

    support: ClassVar = "frozen"

    normalize_weights: bool = False
    """Whether the weights are multiplied by M + 1, so that equal values give behaviour cloning of full size."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"critic": critic(self, target_rate=tau), "actor_flow": velocity(self)}

    def sampler(self) -> Sampler:
        return Integrate(steps=self.flow_steps)


@final
@dataclass(frozen=True, kw_only=True)
class QIPOFullConfig(SupportConfig):
    """Hyperparameters of QIPO over the full support."""

    support: ClassVar = "target"

    num_samples: int = 16
    """Number M of sampled actions per state, besides the action of the data (16 to 64)."""
    pretrain_steps: NonNegativeInt = 250_000
    """Number of updates of the behaviour flow alone, at the beginning of training."""
    critic_warmup: NonNegativeInt = 250_000
    """Number of updates of the critic alone, after the pretraining."""
    renew_every: int = 100_000
    """Number of updates between two renewals of the support; each multiplies the policy by another exp(beta Q)."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"critic": critic(self, target_rate=tau), "actor_flow": velocity(self, target_rate=1.0)}

    def sampler(self) -> Sampler:
        return Integrate(steps=self.flow_steps)

    def update_spec(self, step: int) -> UpdateSpec:
        """The flow alone, the critic alone, then both; the copy of the flow is that of the last renewal."""
        main = step - self.pretrain_steps - self.critic_warmup
        if step < self.pretrain_steps:
            return UpdateSpec((("flow_matching",),), ("actor_flow",), targets_first=False)
        if main < 0:
            return UpdateSpec((("critic",),), ("critic",), targets_first=False)
        renews = (main + 1) % self.renew_every == 0
        return UpdateSpec((("critic", "support"),), None if renews else ("critic",), targets_first=False)


def sample_support(nets: Networks, observations: Tensor, noise: Noise, cfg: SupportConfig) -> Tensor:
    """M actions of each state, `[B, M, A]`."""
    # Deviation: the paper stores the samples of each state; we draw them in every update
    # (docs/algorithms/qipo_full.md, "Where code and paper differ").
    policy: View = getattr(nets, cfg.support)
    return Integrate(steps=cfg.flow_steps)(policy, repeat(observations, cfg.num_samples), noise)


def weighted_support(nets: Networks, batch: Batch, noise: Noise, cfg: SupportConfig) -> tuple[Tensor, Tensor]:
    """The action of the data and M more, `[B, M + 1, A]`, and their weights softmax(beta Q), `[B, M + 1]`; constant."""
    samples = sample_support(nets, batch.observations, noise, cfg)
    actions = torch.cat([batch.actions.unsqueeze(-2), samples], -2)
    q = nets.frozen.critic(repeat(batch.observations, cfg.num_samples + 1), actions)
    return actions, support_weights(aggregate(q, cfg.q_agg, cfg.rho), cfg.beta)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: SupportConfig) -> Loss:
    """(Q(s, a) - r - gamma sum_j w_j Qbar(s', a'_j))^2, w = softmax(beta Qbar(s', a')) over M actions."""
    actions = sample_support(nets, batch.next_observations, noise, cfg)
    return soft_td_loss(nets, batch, actions, cfg.beta, cfg.q_agg, cfg.rho)


@loss_term(trains="actor_flow")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QIPOConfig) -> Loss:
    """w_0 |v(s, x_t, t) - (a - x_0)|^2: the action of the data, weighted against M others."""
    weights = weighted_support(nets, batch, noise, cfg)[1][..., 0]
    scale = cfg.num_samples + 1 if cfg.normalize_weights else 1
    return flow_matching(nets.online.actor_flow, batch, noise, scale * weights), {"weight": weights.mean()}


@loss_term(trains="actor_flow")
def support_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QIPOFullConfig) -> Loss:
    """sum_j w_j |v(s, x_t^j, t_j) - (a_j - x_0^j)|^2, the action of the data and M others."""
    actions, weights = weighted_support(nets, batch, noise, cfg)
    observations, valid = repeat(batch.observations, cfg.num_samples + 1), batch.valid.unsqueeze(-1)
    members = batch._replace(observations=observations, actions=actions, valid=valid)
    loss = flow_matching(nets.online.actor_flow, members, noise, (cfg.num_samples + 1) * weights)
    return loss, {"weight": weights[..., 0].mean()}


@final
class QIPO(OfflineAlgorithm):
    """Q-weighted flow matching: clone each action of the data with a weight exp(beta Q) among sampled actions.

    Examples:
        >>> from flowpolicies import QIPO
        >>> model = QIPO(dataset="pendulum:mixed", beta=3.0, num_samples=8, normalize_weights=True, seed=0)
        >>> model.learn_offline(1_000).policy.save("qipo.safetensors")
    """

    family = "flow"
    Config = QIPOConfig
    losses = (critic_loss, actor_loss)


@final
class QIPOFull(OfflineAlgorithm):
    """Q-weighted iterative policy optimisation: clone the data and the flow's own samples, weighted by exp(beta Q).

    Examples:
        >>> from flowpolicies import QIPOFull
        >>> phases = {"pretrain_steps": 5_000, "critic_warmup": 5_000, "renew_every": 2_000}
        >>> model = QIPOFull(dataset="pendulum:mixed", beta=3.0, seed=0, **phases)
        >>> model.learn_offline(16_000).policy.save("qipo.safetensors")
    """

    name = "qipo_full"
    family = "flow"
    Config = QIPOFullConfig
    losses = (flow_matching_loss, critic_loss, support_loss)
