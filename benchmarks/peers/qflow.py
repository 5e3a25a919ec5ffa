"""Q-Flow, https://arxiv.org/abs/2605.13435: a value of noisy actions whose gradient guides a flow. Our
transcription."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from peers.networks import aggregate, critic, euler, fourier, velocity
from peers.update import Batch, Draws, Peer, Shape, Tree, interpolate, td_loss


def draws(size: int, action_dim: int, cfg: Any) -> list[Shape]:
    """Noise of the next actions; noise and time of the inner value's path, and of the actor's."""
    normal, uniform = ("normal", (size, action_dim)), ("uniform", (size, 1))
    return [normal, normal, uniform, normal, uniform]


def loss(params: Tree, targets: Tree, batch: Batch, draws: Draws, cfg: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """TD loss + (V(s, x_t, t) - Qbar(s, Psi(x_t)))^2 + |v(s, x_t, t) - (x_1 - x_0) - grad V / lambda|^2."""
    frozen = jax.lax.stop_gradient(params)
    s, a, following = batch["observations"], batch["actions"], batch["next_observations"]

    def embed(t: jax.Array) -> jax.Array:
        return fourier(t, cfg.time_dim) if cfg.time_embedding == "fourier" else t

    next_actions = euler(frozen["actor_flow"], following, draws[0], cfg.flow_steps)
    next_q = aggregate(critic(targets["critic"], following, next_actions), cfg.q_agg, cfg.rho)
    critic_loss, metrics = td_loss(critic(params["critic"], s, a), next_q, batch)

    x_t, _ = interpolate(a, draws[1], draws[2])
    x, t = x_t, draws[2]
    for _ in range(cfg.flow_steps):
        dt = jnp.clip(1 - t, 0, 1 / cfg.flow_steps)
        x, t = x + dt * velocity(frozen["actor_flow"], s, x, t), t + dt
    target = aggregate(critic(targets["critic"], s, jnp.clip(x, -1, 1)), cfg.q_agg, cfg.rho)
    v = aggregate(critic(params["inner_value"], s, x_t, embed(draws[2])), cfg.q_agg, 0.0)
    inner_loss = (batch["valid"] * jnp.square(v - target)).mean()

    x_t, path_velocity = interpolate(a, draws[3], draws[4])
    guidance = jax.grad(lambda x: critic(frozen["inner_value"], s, x, embed(draws[4])).mean(0).sum())(x_t)
    wanted = path_velocity + guidance / cfg.guidance_lambda
    error = jnp.square(velocity(params["actor_flow"], s, x_t, draws[4]) - wanted).mean(-1)
    actor_loss = (batch["valid"] * error).mean()
    metrics |= {"inner_value/loss": inner_loss, "inner_value/value": v.mean(), "actor/loss": actor_loss}
    metrics |= {"actor/guidance": jnp.abs(guidance).mean()}
    return critic_loss + inner_loss + actor_loss, metrics


QFlow = Peer("qflow", loss, draws)
