"""QAM, https://arxiv.org/abs/2601.14234: a flow that is fine-tuned by adjoint matching. Our transcription."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from peers.networks import aggregate, critic, euler, velocity
from peers.update import Batch, Draws, Peer, Shape, Tree, flow_matching, interpolate, td_loss


def draws(size: int, action_dim: int, cfg: Any) -> list[Shape]:
    """Noise of the next actions, noise and time of the path, the start of the SDE, and its noises."""
    normal: Shape = ("normal", (size, action_dim))
    return [normal, normal, ("uniform", (size, 1)), normal, *[normal] * cfg.flow_steps]


def sigma(t: float, h: float) -> float:
    """The memoryless noise, sqrt(2 (1 - t + h) / (t + h))."""
    return float((2 * (1 - t + h) / (t + h)) ** 0.5)


def adjoint_loss(params: Tree, targets: Tree, s: jax.Array, draws: Draws, cfg: Any) -> tuple[jax.Array, jax.Array]:
    """sum_i |2 / sigma_i (v_fast - v_slow)(s, x_i, t_i) + sigma_i a_i|^2, and the terminal adjoint."""
    frozen, slow, steps = jax.lax.stop_gradient(params), targets["actor_slow"], cfg.flow_steps
    h, x = 1 / steps, draws[0]
    times = [jnp.full((*x.shape[:-1], 1), i / steps) for i in range(steps + 1)]
    states = [x]
    for i in range(steps - 1):
        drift = 2 * velocity(frozen["actor_fast"], s, x, times[i]) - x / (i * h + h)
        x = x + h * drift + h**0.5 * sigma(i * h, h) * draws[1 + i]
        states.append(x)
    end = x + h * velocity(slow, s, x, times[steps - 1])

    critics = targets["critic"] if cfg.use_target_grad else frozen["critic"]
    adjoint = -cfg.inv_temp * jax.grad(lambda x: critic(critics, s, jnp.clip(x, -1, 1)).mean(0).sum())(end)
    terminal, adjoints = adjoint, []
    for i in reversed(range(steps)):
        _, pull_back = jax.vjp(lambda x, i=i: 2 * velocity(slow, s, x, times[i + 1]) - x / ((i + 1) * h), states[i])
        adjoint = adjoint + h * pull_back(adjoint)[0]
        adjoints.append(adjoint)
    x, t, a = jnp.stack(states), jnp.stack(times[:-1]), jnp.stack(adjoints[::-1])
    sigmas = jnp.array([sigma(i * h, h) for i in range(steps)]).reshape(-1, 1, 1)
    repeated = jnp.broadcast_to(s, (steps, *s.shape))
    difference = velocity(params["actor_fast"], repeated, x, t) - velocity(slow, repeated, x, t)
    return jnp.square(2 / sigmas * difference + sigmas * a).sum((0, -1)).mean(), terminal


def loss(params: Tree, targets: Tree, batch: Batch, draws: Draws, cfg: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """TD loss + flow matching of the slow flow + adjoint matching of the fast one."""
    frozen = jax.lax.stop_gradient(params)
    s, a, following = batch["observations"], batch["actions"], batch["next_observations"]
    next_actions = euler(frozen["actor_fast"], following, draws[0], cfg.flow_steps)
    next_q = aggregate(critic(targets["critic"], following, next_actions), cfg.q_agg, cfg.rho)
    critic_loss, metrics = td_loss(critic(params["critic"], s, a), next_q, batch)
    x_t, path_velocity = interpolate(a, draws[1], draws[2])
    bc_loss = flow_matching(velocity(params["actor_slow"], s, x_t, draws[2]), path_velocity, batch)
    matching, terminal = adjoint_loss(params, targets, s, draws[3:], cfg)
    size = jnp.abs(terminal)
    metrics |= {"flow_matching/loss": bc_loss, "adjoint/loss": matching}
    metrics |= {"adjoint/mean": size.mean(), "adjoint/max": size.max(), "adjoint/std": size.std()}
    return critic_loss + bc_loss + matching, metrics


QAM = Peer("qam", loss, draws)
