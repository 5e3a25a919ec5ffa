"""Reversal Q-learning, and TFQL: the same without its reduction of the horizon.

Oberai, Park, Levine, "Reversal Q-Learning", https://arxiv.org/abs/2606.17551

Each Euler step of the flow is a step of an expanded MDP whose data are reversed flows. Q(s, a) is V(s, a, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.flows import euler, euler_until_arrival, interpolate, leading_grid, uniform_grid
from flowpolicies.losses import aggregate, expectile
from flowpolicies.samplers import Integrate, Sampler
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, velocity
from flowpolicies.shell.fields import UnitInterval


@dataclass(frozen=True, kw_only=True)
class ReversalConfig(CriticConfig):
    """Abstract: hyperparameters that RQL and TFQL share."""

    ensemble: int = 10
    """Number E of value functions."""
    alpha: float = 1.0
    """Weight of behaviour cloning against the value (the authors use 0.1 to 10 on OGBench)."""
    expectile: UnitInterval = 0.5
    """Level kappa of the expectile regression of V, in [0, 1): 0.5 is the mean, towards 1 the maximum over actions."""
    ema: UnitInterval = 0.999
    """Decay per update of the slow actor, which acts in evaluation; exploration uses the trained actor."""
    flow_steps: int = 10
    """Number F of Euler steps of the flow, forward and backward."""

    def networks(self, tau: float) -> dict[str, Network]:
        value = critic(self, target_rate=tau, time_embedding="scalar")
        return {"value": value, "actor_flow": velocity(self, target_rate=1 - self.ema)}

    def sampler(self) -> Sampler:
        return Integrate(steps=self.flow_steps)


@final
@dataclass(frozen=True, kw_only=True)
class RQLConfig(ReversalConfig):
    """Hyperparameters of RQL."""


@final
@dataclass(frozen=True, kw_only=True)
class TFQLConfig(ReversalConfig):
    """Hyperparameters of TFQL."""

    inner_rho: float | None = None
    """Pessimism of the backups between flow steps; None: rho, which then compounds over the F + 1 backups."""


def reversal_depths(noise: Noise, batch_size: int, steps: int) -> Tensor:
    """How far each row is reversed, `[B, 1]`: uniform in [0, 1], and on {0..F} / F in the second half of the batch.

    Raises:
        ValueError: for an odd batch size.
    """
    if batch_size % 2:
        raise ValueError(f"RQL needs an even batch: its halves are reversed differently; got batch_size={batch_size}")
    continuous = noise.times((batch_size // 2,))
    return torch.cat([continuous, noise.integers(steps + 1, (batch_size // 2,)).unsqueeze(-1).to(continuous) / steps])


def _regress_value(nets: Networks, batch: Batch, x: Tensor, t: Tensor, target: Tensor, level: float) -> Loss:
    """mean_{e,b} valid_b L_level(y_b - V_e(s, x, t))."""
    v = nets.online.value(batch.observations, x, t)
    loss = (batch.valid * expectile(target - v, level)).mean()
    return loss, {"v_mean": v.mean(), "v_max": v.max(), "v_min": v.min(), "target_mean": target.mean()}


@loss_term(trains="value")
def value_loss(nets: Networks, batch: Batch, noise: Noise, cfg: RQLConfig) -> Loss:
    """L_kappa(R + gamma^h Vbar(s', x'_0, 0) - V(s, x_{1-d}, 1-d)), x_{1-d} from a by d of the flow, backwards (eq. 14).

    The rest of the chain is deterministic, so all its points have the value of its end.
    """
    x_0 = noise.actions(batch.rewards.shape)
    depth = reversal_depths(noise, batch.rewards.shape[0], cfg.flow_steps)
    field, start = nets.frozen.actor_flow.given(batch.observations), torch.ones_like(depth)
    x = euler(field, batch.actions, uniform_grid(start, 1 - depth, cfg.flow_steps))
    # As in the authors' code, s' is the last observed state if the window ends its episode (docs/algorithms/rql.md).
    next_v = nets.target.value(batch.next_observations, x_0, torch.zeros_like(depth))
    target = batch.rewards + batch.discounts * aggregate(next_v, cfg.q_agg, cfg.rho)
    return _regress_value(nets, batch, x, 1 - depth, target, cfg.expectile)


@loss_term(trains="value")
def step_value_loss(nets: Networks, batch: Batch, noise: Noise, cfg: TFQLConfig) -> Loss:
    """L_kappa(Vbar(s, x_{f+1}, (f+1)/F) - V(s, x_f, f/F)), and the environment's step for f = F.

    x_{f+1} is the point that the reversal came from, which a forward step from x_f would miss.
    """
    x_0 = noise.actions(batch.rewards.shape)
    index = noise.integers(cfg.flow_steps + 1, batch.rewards.shape).unsqueeze(-1).to(batch.rewards)
    t, t_next = index / cfg.flow_steps, ((index + 1) / cfg.flow_steps).clamp(max=1.0)
    field, ends = nets.frozen.actor_flow.given(batch.observations), index == cfg.flow_steps
    # Rows are reversed down to t_next in at most F - 1 steps; one more step leads to t.
    x_next = euler_until_arrival(field, batch.actions, 1 - leading_grid(1 - t_next, cfg.flow_steps)[:-1])
    x = euler(field, x_next, torch.stack([t_next, t]))
    observations = torch.where(ends, batch.next_observations, batch.observations)
    next_v = nets.target.value(observations, torch.where(ends, x_0, x_next), torch.where(ends, 0.0, t_next))
    inner = aggregate(next_v, cfg.q_agg, cfg.rho if cfg.inner_rho is None else cfg.inner_rho)
    outer = batch.rewards + batch.discounts * aggregate(next_v, cfg.q_agg, cfg.rho)
    return _regress_value(nets, batch, x, t, torch.where(ends.squeeze(-1), outer, inner), cfg.expectile)


@loss_term(trains="actor_flow")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: ReversalConfig) -> Loss:
    """alpha |v(s, x_t, t) - (x_1 - x_0)|^2 - V(s, x_t + dt v(s, x_t, t), t + dt), dt = min(1/F, 1 - t) (eq. 15)."""
    x_t, t, path_velocity = interpolate(batch.actions, noise)
    predicted = nets.online.actor_flow(batch.observations, x_t, t)
    bc_loss = (batch.action_mask * (predicted - path_velocity).square()).mean()
    dt = (1 - t).clamp(max=1 / cfg.flow_steps)
    improved = nets.frozen.value(batch.observations, x_t + dt * predicted, t + dt).mean(0)
    q_loss = -(batch.valid * improved).mean()
    return cfg.alpha * bc_loss + q_loss, {"bc_loss": bc_loss, "q_loss": q_loss}


@final
class RQL(OfflineAlgorithm):
    """Reversal Q-learning: improve a flow policy one flow step at a time, with the value horizon of the data.

    Examples:
        >>> from flowpolicies import RQL
        >>> model = RQL(dataset="pendulum:mixed", alpha=3.0, horizon=5, seed=0)
        >>> model.learn_offline(1_000).policy.save("rql.safetensors")
    """

    family = "flow"
    Config = RQLConfig
    losses = (value_loss, actor_loss)
    parity = ("rql_a", "rql_invalid_a", "rql_long_a")
    act_with = ("actor_flow",)
    windows = "episodes"


@final
class TFQL(OfflineAlgorithm):
    """RQL with a value function that is learnt from one flow step to the next: F + 1 backups per action chunk.

    Examples:
        >>> from flowpolicies import TFQL
        >>> model = TFQL(dataset="pendulum:mixed", alpha=3.0, flow_steps=5, seed=0)
        >>> model.learn_offline(1_000).policy.save("tfql.safetensors")
    """

    family = "flow"
    Config = TFQLConfig
    losses = (step_value_loss, actor_loss)
    act_with = ("actor_flow",)
    windows = "episodes"
