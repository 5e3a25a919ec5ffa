"""FBRAC: a flow policy that climbs Q by backpropagation through its solver.

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
    """Number K of critics."""
    rho: float = 0.5
    """Pessimism rho of the TD target: mean - rho * std over the critics (the authors use 0 on humanoidmaze)."""
    alpha: float = 100.0
    """Weight of behaviour cloning against Q, which is divided by it; tune this one first (0.03 to 100)."""
    flow_steps: int = 10
    """Number of Euler steps of the flow."""
    best_of_n: int = 1
    """Number of candidates per action, when acting and in TD targets; the critics' mean chooses the best."""

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
    # As in QAM's code, the mean of the critics without rho, not weighted by `valid`
    # (docs/algorithms/fbrac.md, "Where code and paper differ").
    q_loss = maximize_q(nets, batch, actions)
    return q_loss / cfg.alpha, {"q_loss": q_loss}


@final
class FBRAC(OfflineAlgorithm):
    """Flow BRAC: a flow policy that clones the data and climbs Q by backpropagation through its solver.

    Examples:
        >>> from flowpolicies import FBRAC
        >>> model = FBRAC(dataset="pendulum:mixed", alpha=30.0, flow_steps=5, seed=0)
        >>> model.learn_offline(1_000).policy.save("fbrac.safetensors")
    """

    family = "flow"
    Config = FBRACConfig
    losses = (critic_loss, flow_matching_loss, actor_loss)
    parity = ("fbrac_a",)
