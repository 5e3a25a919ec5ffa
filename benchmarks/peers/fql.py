"""FQL, https://arxiv.org/abs/2502.02538: TD learning, a behaviour flow, and a one-step policy. Our transcription."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from peers.networks import aggregate, critic, euler, velocity
from peers.update import Batch, Draws, Peer, Shape, Tree, flow_matching, interpolate, td_loss


def draws(size: int, action_dim: int, cfg: Any) -> list[Shape]:
    """Noise of the next actions, of the path, its time, and the noise of the distillation."""
    normal: Shape = ("normal", (size, action_dim))
    return [normal, normal, ("uniform", (size, 1)), normal]


def loss(params: Tree, targets: Tree, batch: Batch, draws: Draws, cfg: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """TD loss + flow matching + alpha |mu(s, z) - Psi(s, z)|^2 - Q(s, mu(s, z))."""
    frozen = jax.lax.stop_gradient(params)
    s, a, following = batch["observations"], batch["actions"], batch["next_observations"]
    next_actions = jnp.clip(velocity(frozen["actor_onestep"], following, draws[0]), -1, 1)
    next_q = aggregate(critic(targets["critic"], following, next_actions), cfg.q_agg, cfg.rho)
    critic_loss, metrics = td_loss(critic(params["critic"], s, a), next_q, batch)

    x_t, path_velocity = interpolate(a, draws[1], draws[2])
    bc_loss = flow_matching(velocity(params["actor_flow"], s, x_t, draws[2]), path_velocity, batch)

    landed = euler(frozen["actor_flow"], s, draws[3], cfg.flow_steps)
    student = velocity(params["actor_onestep"], s, draws[3])
    distill = jnp.square(student - landed).mean()
    q = critic(frozen["critic"], s, jnp.clip(student, -1, 1)).mean(0)
    q_loss = -q.mean()
    if cfg.normalize_q_loss:
        q_loss = q_loss / jax.lax.stop_gradient(jnp.abs(q).mean())
    metrics |= {"flow_matching/loss": bc_loss, "actor/distill": distill, "actor/q_loss": q_loss}
    return critic_loss + bc_loss + cfg.alpha * distill + q_loss, metrics


FQL = Peer("fql", loss, draws)
