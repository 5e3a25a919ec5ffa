"""RQL, https://arxiv.org/abs/2606.17551: values of points that the flow, run backwards, leads to. Our transcription."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from peers.networks import aggregate, critic, velocity
from peers.update import Batch, Draws, Peer, Shape, Tree, interpolate


def draws(size: int, action_dim: int, cfg: Any) -> list[Shape]:
    """The start of the next chain, the depths of the two halves, and noise and time of the path."""
    normal: Shape = ("normal", (size, action_dim))
    depths: list[Shape] = [("uniform", (size // 2, 1)), (str(cfg.flow_steps + 1), (size // 2,))]
    return [normal, *depths, normal, ("uniform", (size, 1))]


def loss(params: Tree, targets: Tree, batch: Batch, draws: Draws, cfg: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Expectile regression of V at reversed actions + alpha behaviour cloning - V after one flow step."""
    frozen = jax.lax.stop_gradient(params)
    s, a = batch["observations"], batch["actions"]
    depth = jnp.concatenate([draws[1].reshape(-1, 1), draws[2].reshape(-1, 1) / cfg.flow_steps])
    x, t = a, jnp.ones_like(depth)
    for _ in range(cfg.flow_steps):
        x, t = x - depth / cfg.flow_steps * velocity(frozen["actor_flow"], s, x, t), t - depth / cfg.flow_steps
    next_v = critic(targets["value"], batch["next_observations"], draws[0], jnp.zeros_like(depth))
    target = batch["rewards"] + batch["discounts"] * aggregate(next_v, cfg.q_agg, cfg.rho)
    v = critic(params["value"], s, x, 1 - depth)
    difference = target - v
    weight = jnp.where(difference < 0, 1 - cfg.expectile, cfg.expectile)
    value_loss = (batch["valid"] * weight * jnp.square(difference)).mean()

    x_t, path_velocity = interpolate(a, draws[3], draws[4])
    predicted = velocity(params["actor_flow"], s, x_t, draws[4])
    bc_loss = (batch["action_mask"] * jnp.square(predicted - path_velocity)).mean()
    dt = jnp.minimum(1 / cfg.flow_steps, 1 - draws[4])
    improved = critic(frozen["value"], s, x_t + dt * predicted, draws[4] + dt).mean(0)
    q_loss = -(batch["valid"] * improved).mean()
    metrics = {"value/loss": value_loss, "value/v_mean": v.mean(), "value/v_max": v.max(), "value/v_min": v.min()}
    metrics |= {"actor/bc_loss": bc_loss, "actor/q_loss": q_loss}
    return value_loss + cfg.alpha * bc_loss + q_loss, metrics


RQL = Peer("rql", loss, draws)
