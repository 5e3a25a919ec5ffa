"""The networks as functions of their weights, which have the names and shapes of ours.

A network's weights are a dict `{"net.layers.0.weight": [in, out], "net.layers.0.bias": [out], ...}`; those of an
ensemble have a leading axis of its members.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

Weights = dict[str, jax.Array]


def mlp(weights: Weights, x: jax.Array) -> jax.Array:
    """Dense -> GELU (tanh approximation) -> LayerNorm, if there are weights for it; then a linear output."""
    layer = 0
    while f"net.layers.{layer}.weight" in weights:
        x = x @ weights[f"net.layers.{layer}.weight"] + weights[f"net.layers.{layer}.bias"]
        x = jax.nn.gelu(x, approximate=True)
        if f"net.norms.{layer}.weight" in weights:
            x = layer_norm(x, weights[f"net.norms.{layer}.weight"], weights[f"net.norms.{layer}.bias"])
        layer += 1
    return x @ weights["net.output.weight"] + weights["net.output.bias"]


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Normalises the last axis with eps 1e-6; the variance is E[x^2] - E[x]^2, as in flax."""
    mean = x.mean(-1, keepdims=True)
    variance = jnp.maximum(jnp.square(x).mean(-1, keepdims=True) - jnp.square(mean), 0.0)
    return (x - mean) * (jax.lax.rsqrt(variance + 1e-6) * scale) + bias


def critic(weights: Weights, observations: jax.Array, *inputs: jax.Array) -> jax.Array:
    """Values of all members of an ensemble, `[E, B]`."""
    x = jnp.concatenate([observations, *inputs], -1)
    return jax.vmap(mlp, in_axes=(0, None))(weights, x).squeeze(-1)


def value(weights: Weights, observations: jax.Array) -> jax.Array:
    """State values, `[B]`."""
    return mlp(weights, observations).squeeze(-1)


def velocity(weights: Weights, observations: jax.Array, *inputs: jax.Array) -> jax.Array:
    """Velocity at (x, t), or actions of a one-step policy from noise alone, `[B, A]`."""
    return mlp(weights, jnp.concatenate([observations, *inputs], -1))


def fourier(t: jax.Array, dim: int) -> jax.Array:
    """Sines and cosines of the flow time `[B, 1]` at log-spaced frequencies from 1 to 256, `[B, dim]`."""
    angles = t * jnp.exp(jnp.linspace(0.0, math.log(256.0), dim // 2, dtype=t.dtype))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def euler(weights: Weights, observations: jax.Array, noise: jax.Array, steps: int) -> jax.Array:
    """The clipped end of a flow after equal Euler steps from 0 to 1."""
    x = noise
    for i in range(steps):
        x = x + velocity(weights, observations, x, jnp.full((*x.shape[:-1], 1), i / steps)) / steps
    return jnp.clip(x, -1, 1)


def aggregate(q: jax.Array, q_agg: str, rho: float) -> jax.Array:
    """One value from an ensemble, `[E, B]` -> `[B]`: the minimum, or mean - rho * std."""
    if q_agg == "min":
        return q.min(0)
    return q.mean(0) - rho * q.std(0) if rho else q.mean(0)
