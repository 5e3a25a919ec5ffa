"""FEdit: a behaviour flow and a small policy that edits its actions.

The edit rule is EXPO's: Dong et al., "EXPO: Stable Reinforcement Learning with Expressive Policies",
https://arxiv.org/abs/2507.07986. This version is a baseline of "Q-learning with Adjoint Matching",
https://arxiv.org/abs/2601.14234
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.losses import edit_objective, flow_matching_loss, td_loss
from flowpolicies.networks import Temperature
from flowpolicies.samplers import Edit, Integrate, Sampler, best_of
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, edit_actor, velocity


@final
@dataclass(frozen=True, kw_only=True)
class FEditConfig(CriticConfig):
    """Hyperparameters of FEdit."""

    ensemble: int = 10
    """Number K of critics."""
    rho: float = 0.5
    """Pessimism rho of the TD target: mean - rho * std over the critics (the authors use 0 on humanoidmaze)."""
    edit_scale: float = 0.2
    """Size of the largest edit of each coordinate of the action; tune this one first (the authors use 0.1 to 0.8)."""
    target_entropy_multiplier: float = 0.5
    """Target entropy of the edit policy: minus this number, times the dimension of the action (chunk)."""
    flow_steps: int = 10
    """Number of Euler steps of the behaviour flow."""
    best_of_n: int = 1
    """Number of candidates per action, when acting and in TD targets; the critics' mean chooses the best."""

    def behavior_flow(self) -> Sampler:
        return Integrate("actor_flow", steps=self.flow_steps)

    def networks(self, tau: float) -> dict[str, Network]:
        return {
            "critic": critic(self, target_rate=tau),
            "actor_flow": velocity(self),
            "edit_actor": edit_actor(self),
            "temperature": Network(Temperature),
        }

    def sampler(self) -> Sampler:
        return best_of(Edit(self.behavior_flow(), self.edit_scale), self.best_of_n)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: FEditConfig) -> Loss:
    """(Q(s, a) - r - gamma Qbar(s', a'))^2, a' the edited action."""
    next_actions = cfg.sampler()(nets.frozen, batch.next_observations, noise)
    return td_loss(nets, batch, next_actions, cfg.q_agg, cfg.rho)


@loss_term(trains=("edit_actor", "temperature"))
def edit_loss(nets: Networks, batch: Batch, noise: Noise, cfg: FEditConfig) -> Loss:
    """-Q(s, a + scale e) + alpha log pi(e | s, a) + alpha (H - H_target), a from the behaviour flow."""
    target_entropy = -cfg.target_entropy_multiplier * batch.actions.shape[-1]
    return edit_objective(nets, batch, noise, cfg.behavior_flow(), cfg.edit_scale, target_entropy)


@final
class FEdit(OfflineAlgorithm):
    """Flow with edits: clone the data with a flow, and climb Q with small edits of its actions.

    Examples:
        >>> from flowpolicies import FEdit
        >>> model = FEdit(env="Pendulum-v1", dataset="pendulum:mixed", edit_scale=0.1, horizon=5, seed=0)
        >>> model.learn_offline(1_000).learn(1_000).save("fedit.zip")
    """

    family = "guided"
    Config = FEditConfig
    losses = (critic_loss, flow_matching_loss, edit_loss)
    parity = ("fedit_a",)
