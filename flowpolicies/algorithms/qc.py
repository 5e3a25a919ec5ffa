"""Q-chunking: the best of N samples of a behaviour flow, in TD targets and when acting.

Li, Zhou, Levine, "Reinforcement Learning with Action Chunking", https://arxiv.org/abs/2507.07969
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.losses import FLOW_MATCHING, ClonedSteps, td_loss
from flowpolicies.samplers import Integrate, Sampler, best_of
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, velocity


@final
@dataclass(frozen=True, kw_only=True)
class QCConfig(CriticConfig):
    """Hyperparameters of QC."""

    added: ClassVar = {"cloned_steps": "whole_chunks"}

    horizon: int = 5
    """Length H of an action chunk, in environment steps: the policy plans H actions and executes them open loop."""
    flow_steps: int = 10
    """Number of Euler steps of the behaviour flow."""
    num_samples: int = 32
    """Number N of candidates per action (chunk), when acting and in TD targets; the best by `q_agg` is taken."""
    cloned_steps: ClonedSteps = "inside"
    """Steps that the behaviour flow clones: all inside their episode, or those of chunks that lie in it as a whole."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"critic": critic(self, target_rate=tau), "actor_flow": velocity(self)}

    def sampler(self) -> Sampler:
        return best_of(Integrate(steps=self.flow_steps), self.num_samples, score=self.q_agg)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QCConfig) -> Loss:
    """(Q(s, a) - r - gamma^H Qbar(s', a'))^2, a' the best of N samples of the behaviour flow."""
    next_actions = cfg.sampler()(nets.frozen, batch.next_observations, noise)
    return td_loss(nets, batch, next_actions, cfg.q_agg, cfg.rho)


@loss_term(trains="actor_flow")
def flow_matching_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QCConfig) -> Loss:
    """|v(s, x_t, t) - (x_1 - x_0)|^2 of the cloned steps: behaviour cloning of `actor_flow`."""
    return FLOW_MATCHING[cfg.cloned_steps](nets.online.actor_flow, batch, noise), {}


@final
class QC(OfflineAlgorithm):
    """Q-chunking: act with the best of N action chunks of a behaviour flow (BFN at horizon=1).

    Examples:
        >>> from flowpolicies import QC
        >>> model = QC(env="Pendulum-v1", dataset="pendulum:mixed", horizon=4, seed=0)
        >>> observation, state = model.observation_space.sample(), None
        >>> for _ in range(4):  # one plan of four actions
        ...     action, state = model.predict(observation, state)
    """

    family = "guided"
    Config = QCConfig
    losses = (critic_loss, flow_matching_loss)
    parity = ("qc_a", "qc_partial_a")
