"""Q-guided flow Q-learning: behaviour flow and critic are trained apart; the critic guides the flow when acting.

"Q-Guided Flow Q-Learning", https://openreview.net/forum?id=MFY9i3uR7S; docs/algorithms/qfql.md describes the rule, and
what its source leaves open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.losses import flow_matching_loss, td_loss
from flowpolicies.samplers import Guided, Integrate, Sampler, Schedule
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, velocity


@final
@dataclass(frozen=True, kw_only=True)
class QFQLConfig(CriticConfig):
    """Hyperparameters of QFQL."""

    beta: float = 1.0
    """Strength of the guidance when acting; at 0 the policy is the behaviour flow (the authors sweep 0.3 to 100)."""
    schedule: Schedule = "constant"
    """How the guidance grows along the flow; the published rule is constant."""
    flow_steps: int = 10
    """Number of Euler steps of the flow."""
    td_action: Literal["euler", "one_step", "guided_euler"] = "euler"
    """Sampler of the next action in TD targets: behaviour flow, one step of it, or guided flow."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"critic": critic(self, target_rate=tau), "actor_flow": velocity(self)}

    def sampler(self) -> Sampler:
        return Guided(steps=self.flow_steps, beta=self.beta, schedule=self.schedule)


TD_SAMPLERS: dict[str, Callable[[QFQLConfig], Sampler]] = {
    "euler": lambda cfg: Integrate(steps=cfg.flow_steps),
    "one_step": lambda cfg: Integrate(steps=1),
    "guided_euler": lambda cfg: Guided(steps=cfg.flow_steps, beta=cfg.beta, schedule=cfg.schedule),
}


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QFQLConfig) -> Loss:
    """(Q(s, a) - r - gamma Qbar(s', a'))^2, a' from the flow."""
    next_actions = TD_SAMPLERS[cfg.td_action](cfg)(nets.frozen, batch.next_observations, noise)
    return td_loss(nets, batch, next_actions, cfg.q_agg, cfg.rho)


@final
class QFQL(OfflineAlgorithm):
    """Q-guided flow Q-learning: behaviour-cloning flow, guided by the critic's gradient when acting.

    Examples:
        >>> from flowpolicies import QFQL
        >>> from flowpolicies.samplers import Guided
        >>> model = QFQL(dataset="pendulum:mixed", seed=0).learn_offline(1_000)
        >>> for beta in (0.0, 0.3, 1.0):  # from the clone towards Q, without training again
        ...     model.policy.sampler = Guided(beta=beta)
        ...     action, _ = model.predict(model.observation_space.sample())
    """

    family = "guided"
    Config = QFQLConfig
    losses = (critic_loss, flow_matching_loss)
