"""FAWAC: advantage-weighted behaviour cloning of a flow.

A baseline of Park, Li, Levine, "Flow Q-Learning", https://arxiv.org/abs/2502.02538, with the weights of
Nair et al., "AWAC", https://arxiv.org/abs/2006.09359; the form is that of QAM's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.losses import advantage_weights, flow_matching, td_loss
from flowpolicies.samplers import Integrate, Sampler
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, value, velocity


@final
@dataclass(frozen=True, kw_only=True)
class FAWACConfig(CriticConfig):
    """Hyperparameters of FAWAC."""

    ensemble: int = 10
    """Number K of critics."""
    rho: float = 0.5
    """Pessimism rho of the TD target: mean - rho * std over the critics (the authors use 0 on humanoidmaze)."""
    inv_temp: float = 10.0
    """Inverse temperature of the advantage weights (the authors use 0.8 to 6.4 on OGBench); 0 is behaviour cloning."""
    flow_steps: int = 10
    """Number of Euler steps of the flow."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"critic": critic(self, target_rate=tau), "value": value(self), "actor_flow": velocity(self)}

    def sampler(self) -> Sampler:
        return Integrate(steps=self.flow_steps)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: FAWACConfig) -> Loss:
    """(Q(s, a) - r - gamma Qbar(s', a'))^2, a' from the flow."""
    next_actions = Integrate(steps=cfg.flow_steps)(nets.frozen, batch.next_observations, noise)
    return td_loss(nets, batch, next_actions, cfg.q_agg, cfg.rho)


@loss_term(trains="value")
def value_loss(nets: Networks, batch: Batch, noise: Noise, cfg: FAWACConfig) -> Loss:
    """mean_e (Qbar_e(s, a) - V(s))^2: towards the mean over the ensemble, that is the value of the behaviour policy."""
    # As in QAM's code, V is regressed onto every member, without an expectile and without rho
    # (docs/algorithms/fawac.md, "Where code and paper differ").
    q = nets.target.critic(batch.observations, batch.actions)
    v = nets.online.value(batch.observations)
    return (batch.valid * (q - v).square()).mean(), {"v_mean": v.mean()}


@loss_term(trains="actor_flow")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: FAWACConfig) -> Loss:
    """w |v(s, x_t, t) - (a - x_0)|^2, w = min(exp(inv_temp (Q(s, a) - V(s))), 100)."""
    q = nets.frozen.critic(batch.observations, batch.actions).mean(0)
    advantages = q - nets.frozen.value(batch.observations)
    weights = advantage_weights(advantages, cfg.inv_temp)
    loss = flow_matching(nets.online.actor_flow, batch, noise, weights)
    return loss, {"advantage": advantages.mean(), "weight": weights.mean()}


@final
class FAWAC(OfflineAlgorithm):
    """Flow AWAC: behaviour cloning with a flow, weighted by the advantage of each action.

    Examples:
        >>> from flowpolicies import FAWAC
        >>> model = FAWAC(dataset="pendulum:mixed", inv_temp=3.0, flow_steps=5, seed=0).learn_offline(1_000)
        >>> actions, _ = model.predict([model.observation_space.sample() for _ in range(8)])
        >>> actions.shape
        (8, 1)
    """

    family = "flow"
    Config = FAWACConfig
    losses = (critic_loss, value_loss, actor_loss)
    parity = ("fawac_a",)
