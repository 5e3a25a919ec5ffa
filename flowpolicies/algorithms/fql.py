"""Flow Q-learning.

Park, Li, Levine, "Flow Q-Learning", https://arxiv.org/abs/2502.02538
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.losses import FLOW_MATCHING, ClonedSteps, distillation, maximize_q, td_loss
from flowpolicies.samplers import OneStep, Sampler, best_of
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, velocity


@final
@dataclass(frozen=True, kw_only=True)
class FQLConfig(CriticConfig):
    """Hyperparameters of FQL."""

    added: ClassVar = {"cloned_steps": "whole_chunks"}

    alpha: float = 10.0
    """Weight of the distillation against Q; tune this one first (the authors use 3 to 1000 on OGBench)."""
    flow_steps: int = 10
    """Number of Euler steps of the behaviour flow."""
    normalize_q_loss: bool = False
    """Whether the Q term is divided by mean |Q|; advised for new tasks, with alpha between 0.03 and 10."""
    best_of_n: int = 1
    """Number of candidates per action, when acting and in TD targets; the critics' mean chooses the best."""
    cloned_steps: ClonedSteps = "whole_chunks"
    """Steps that the behaviour flow clones: those of chunks that lie in their episode as a whole, or all inside it."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {
            "critic": critic(self, target_rate=tau),
            "actor_flow": velocity(self),
            "actor_onestep": velocity(self, time_embedding="none"),
        }

    def sampler(self) -> Sampler:
        return best_of(OneStep("actor_onestep"), self.best_of_n)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: FQLConfig) -> Loss:
    """(Q(s, a) - r - gamma Qbar(s', mu(s', z)))^2."""
    next_actions = cfg.sampler()(nets.frozen, batch.next_observations, noise)
    return td_loss(nets, batch, next_actions, cfg.q_agg, cfg.rho)


@loss_term(trains="actor_flow")
def flow_matching_loss(nets: Networks, batch: Batch, noise: Noise, cfg: FQLConfig) -> Loss:
    """|v(s, x_t, t) - (x_1 - x_0)|^2 of the cloned steps: behaviour cloning of `actor_flow`."""
    return FLOW_MATCHING[cfg.cloned_steps](nets.online.actor_flow, batch, noise), {}


@loss_term(trains="actor_onestep")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: FQLConfig) -> Loss:
    """alpha |mu(s, z) - Psi(s, z)|^2 - Q(s, mu(s, z)), Psi the behaviour flow from z."""
    # As in the authors' code: the student is clipped in the Q term but not in the distillation, the Q term takes the
    # critics' mean whatever q_agg is, and neither is weighted by `valid`
    # (docs/algorithms/fql.md, "Where code and paper differ").
    distill, student = distillation(nets, batch, noise, cfg.flow_steps, teacher="actor_flow")
    q_loss = maximize_q(nets, batch, student, cfg.normalize_q_loss)
    return cfg.alpha * distill + q_loss, {"distill": distill, "q_loss": q_loss}


@final
class FQL(OfflineAlgorithm):
    """Flow Q-learning: distil the behaviour flow into a one-step actor that also climbs Q.

    Examples:
        >>> from flowpolicies import FQL
        >>> model = FQL(env="Pendulum-v1", dataset="pendulum:mixed", alpha=10.0, seed=0)
        >>> model.learn_offline(1_000).learn(1_000).save("fql.zip")  # offline, then online
    """

    family = "flow"
    Config = FQLConfig
    losses = (critic_loss, flow_matching_loss, actor_loss)
    parity = ("fql_a", "fql_multi_a", "qam_fql_a")
