"""Implicit flow Q-learning: the flow variant of IDQL.

Hansen-Estruch et al., "IDQL", https://arxiv.org/abs/2304.10573, with the flow policy of
Park, Li, Levine, "Flow Q-Learning", https://arxiv.org/abs/2502.02538
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.losses import QAggregation, flow_matching_loss, iql_critic_loss, iql_value_loss
from flowpolicies.samplers import Integrate, Sampler, best_of
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, value, velocity
from flowpolicies.shell.fields import UnitInterval


@final
@dataclass(frozen=True, kw_only=True)
class IFQLConfig(CriticConfig):
    """Hyperparameters of IFQL."""

    q_agg: QAggregation = "min"
    """How the target critics become V's target: minimum (FQL's code), or mean - rho * std (QAM's code)."""
    expectile: UnitInterval = 0.9
    """Level kappa of the expectile regression of V, in [0, 1): 0.5 is the mean, towards 1 the maximum over actions."""
    critic_weight: float = 2.0
    """Weight of the critic loss: 2 gives FQL's sum over two critics, 1 gives the mean of QAM's code."""
    flow_steps: int = 10
    """Number of Euler steps of the behaviour flow."""
    num_samples: int = 32
    """Number N of candidates per action; the minimum over the critics chooses the best."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"critic": critic(self, target_rate=tau), "value": value(self), "actor_flow": velocity(self)}

    def sampler(self) -> Sampler:
        # As in the authors' code, ranked by the minimum even if the targets take mean - rho * std
        # (docs/algorithms/ifql.md, "Where code and paper differ").
        return best_of(Integrate(steps=self.flow_steps), self.num_samples, score="min")


@loss_term(trains="value")
def value_loss(nets: Networks, batch: Batch, noise: Noise, cfg: IFQLConfig) -> Loss:
    """L_kappa(agg Qbar(s, a) - V(s))."""
    return iql_value_loss(nets, batch, cfg.expectile, cfg.q_agg, cfg.rho)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: IFQLConfig) -> Loss:
    """(Q(s, a) - r - gamma V(s'))^2."""
    loss, metrics = iql_critic_loss(nets, batch)
    return cfg.critic_weight * loss, metrics


@final
class IFQL(OfflineAlgorithm):
    """Implicit flow Q-learning: act with the best of N samples of the behaviour flow.

    Examples:
        >>> from flowpolicies import IFQL
        >>> from flowpolicies.samplers import BestOfN, Integrate
        >>> model = IFQL(dataset="pendulum:mixed", expectile=0.9, num_samples=32, seed=0).learn_offline(1_000)
        >>> model.policy.sampler = BestOfN(Integrate(steps=5), n=8)  # cheaper to act with
    """

    family = "guided"
    Config = IFQLConfig
    losses = (value_loss, critic_loss, flow_matching_loss)
    parity = ("ifql_a", "ifql_multi_a", "qam_ifql_a")
