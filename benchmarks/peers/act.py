"""Acting in JAX: a jitted function from observations to actions, written from the equations of the samplers.

Like the updates beside it, it is our own transcription and not the authors' code. An action includes drawing the noise,
and the way from NumPy to the device and back, as `predict` of ours does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from peers.networks import critic, euler, velocity

Tree = Mapping[str, Mapping[str, Any]]
"""Name of a network -> name of a tensor -> its values, as in our state dicts."""
Act = Callable[[np.ndarray], np.ndarray]
"""Observations `[N, O]` -> actions `[N, A]`."""


def flow(weights: Any, observations: jax.Array, noise: jax.Array, *, steps: int) -> jax.Array:
    """x_0 ~ N(0, I), Euler steps along v(s, x, t), clipped to [-1, 1] at the end."""
    return euler(weights["actor_flow"], observations, noise, steps)


def one_step(weights: Any, observations: jax.Array, noise: jax.Array) -> jax.Array:
    """clip(mu(s, z)), z ~ N(0, I)."""
    return jnp.clip(velocity(weights["actor_onestep"], observations, noise), -1, 1)


def guided(weights: Any, observations: jax.Array, noise: jax.Array, *, steps: int, beta: float) -> jax.Array:
    """Euler steps along v(s, x, t) + beta grad_x mean_e Q_e(s, x), clipped to [-1, 1] at the end."""
    climb = jax.grad(lambda x: critic(weights["critic"], observations, x).mean(0).sum())
    x = noise
    for i in range(steps):
        t = jnp.full((*x.shape[:-1], 1), i / steps)
        x = x + (velocity(weights["actor_flow"], observations, x, t) + beta * climb(x)) / steps
    return jnp.clip(x, -1, 1)


def best_of(weights: Any, observations: jax.Array, noise: jax.Array, *, steps: int, n: int) -> jax.Array:
    """The one of n actions of the flow with the largest min_e Q_e(s, a)."""
    repeated = jnp.repeat(observations, n, axis=0)
    actions = euler(weights["actor_flow"], repeated, noise, steps)
    q = critic(weights["critic"], repeated, actions).min(0).reshape(-1, n)
    chosen = actions.reshape(-1, n, actions.shape[-1])
    return jnp.take_along_axis(chosen, q.argmax(-1)[:, None, None], axis=1).squeeze(1)


SAMPLERS: dict[str, Callable[..., jax.Array]] = {
    "Integrate": flow,
    "OneStep": one_step,
    "Guided": guided,
    "BestOfN": best_of,
}
"""Name of a sampler of ours -> its transcription."""


def make_act(sampler: str, tree: Tree, action_dim: int, *, draws: int = 1, **options: Any) -> Act:
    """A policy in JAX.

    Args:
        sampler: name of a sampler in `SAMPLERS`.
        tree: weights of its networks.
        action_dim: number of coordinates of an action.
        draws: number of noises for each observation.
        options: further arguments of the function.
    """
    sample = SAMPLERS[sampler]

    @jax.jit
    def act(weights: Any, key: jax.Array, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        key, own = jax.random.split(key)
        noise = jax.random.normal(own, (draws * len(observations), action_dim))
        return key, sample(weights, observations, noise, **options)

    weights, key = jax.tree.map(jnp.asarray, {name: dict(tensors) for name, tensors in tree.items()}), jax.random.key(0)

    def call(observations: np.ndarray) -> np.ndarray:
        nonlocal key
        key, actions = act(weights, key, observations)
        return np.asarray(actions)

    return call
