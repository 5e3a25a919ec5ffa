"""FBRAC: a flow that climbs Q by backpropagation through its solver.

A baseline of Park, Li, Levine, "Flow Q-Learning", https://arxiv.org/abs/2502.02538, after
Wu, Tucker, Nachum, "Behavior Regularized Offline Reinforcement Learning", https://arxiv.org/abs/1911.11361; the form is
that of QAM's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.losses import flow_matching_loss, maximize_q, td_loss
from flowpolicies.samplers import Integrate, Sampler, best_of
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, velocity


@final
@dataclass(frozen=True, kw_only=True)
class FBRACConfig(CriticConfig):
    """Hyperparameters of FBRAC."""

    ensemble: int = 10
    """Number of critics K."""
    rho: float = 0.5
    """Pessimism of the TD target: mean - rho * std over the ensemble (the authors use 0 on humanoidmaze)."""
    alpha: float = 100.0
    """Weight of the data against Q, which is divided by it; the one number to tune (0.03 to 100)."""
    flow_steps: int = 10
    """Euler steps of the flow."""
    best_of_n: int = 1
    """Candidates per action, ranked by the mean critic."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"critic": critic(self, target_rate=tau), "actor_flow": velocity(self)}

    def sampler(self) -> Sampler:
        return best_of(Integrate(steps=self.flow_steps), self.best_of_n)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: FBRACConfig) -> Loss:
    """(Q(s, a) - r - gamma Qbar(s', a'))^2, a' from the flow."""
    return td_loss(nets, batch, cfg.sampler()(nets.frozen, batch.next_observations, noise), cfg.q_agg, cfg.rho)


@loss_term(trains="actor_flow")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: FBRACConfig) -> Loss:
    """-Q(s, Psi(z)) / alpha, with gradient through every Euler step: the sampler, on the online view."""
    actions = Integrate(steps=cfg.flow_steps)(nets.online, batch.observations, noise)
    q_loss = maximize_q(nets, batch, actions)
    return q_loss / cfg.alpha, {"q_loss": q_loss}


@final
class FBRAC(OfflineAlgorithm):
    """Flow BRAC: flow matching, and backpropagation of Q through the solver."""

    Config = FBRACConfig
    losses = (critic_loss, flow_matching_loss, actor_loss)
    parity = ("fbrac_a",)
