"""IFQL: implicit Q-learning with a behaviour flow, https://arxiv.org/abs/2304.10573. Our transcription."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from peers.networks import aggregate, critic, value, velocity
from peers.update import Batch, Draws, Peer, Shape, Tree, flow_matching, interpolate, td_loss


def draws(size: int, action_dim: int, cfg: Any) -> list[Shape]:
    """Noise and time of the path."""
    return [("normal", (size, action_dim)), ("uniform", (size, 1))]


def loss(params: Tree, targets: Tree, batch: Batch, draws: Draws, cfg: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Expectile regression of V on Q, TD loss of Q with V, and flow matching."""
    frozen = jax.lax.stop_gradient(params)
    s, a = batch["observations"], batch["actions"]
    v = value(params["value"], s)
    difference = aggregate(critic(targets["critic"], s, a), cfg.q_agg, cfg.rho) - v
    value_loss = (jnp.where(difference < 0, 1 - cfg.expectile, cfg.expectile) * jnp.square(difference)).mean()
    critic_loss, metrics = td_loss(
        critic(params["critic"], s, a), value(frozen["value"], batch["next_observations"]), batch
    )
    x_t, path_velocity = interpolate(a, draws[0], draws[1])
    bc_loss = flow_matching(velocity(params["actor_flow"], s, x_t, draws[1]), path_velocity, batch)
    metrics |= {"value/loss": value_loss, "value/v_mean": v.mean(), "value/v_max": v.max(), "value/v_min": v.min()}
    metrics |= {"flow_matching/loss": bc_loss}
    return value_loss + cfg.critic_weight * critic_loss + bc_loss, metrics


IFQL = Peer("ifql", loss, draws)
