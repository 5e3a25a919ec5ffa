"""One update: the sum of an algorithm's losses, one Adam over all weights, and the Polyak step of the slow copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from peers.networks import Weights

Tree = dict[str, Weights]
"""Name of a network -> its weights."""
Batch = Mapping[str, jax.Array]
"""Columns of a batch under the names of ours: observations, actions, rewards, ..."""
Draws = Sequence[jax.Array]
"""Random numbers of one update, in the order in which ours draws them."""
Shape = tuple[str, tuple[int, ...]]
"""Kind of a draw ("normal", "uniform", or the number of integers as text) and its shape."""
Loss = Callable[[Tree, Tree, Batch, Draws, Any], tuple[jax.Array, dict[str, jax.Array]]]
"""(weights, slow copies, batch, draws, config of ours) -> sum of the losses, and what is logged."""


@dataclass(frozen=True)
class Peer:
    """An algorithm: its loss, and the draws that the loss takes."""

    name: str
    """Name of the algorithm of ours that it transcribes."""
    loss: Loss
    """The sum of all losses of an update."""
    draws: Callable[[int, int, Any], list[Shape]]
    """(batch size, action dimension, config of ours) -> kinds and shapes of the draws."""


class PeerState(NamedTuple):
    """What an update changes."""

    params: dict[str, Tree]
    """The weights ("online") and the slow copies ("target")."""
    optimizer: optax.OptState
    key: jax.Array


def first_state(params: Tree, targets: Tree, optimizer: optax.GradientTransformation, lean: bool = False) -> PeerState:
    """The state before the first update, from weights of ours as arrays."""
    tree = jax.tree.map(jnp.asarray, {"online": params, "target": targets})
    return PeerState(tree, optimizer.init({"online": tree["online"]} if lean else tree), jax.random.PRNGKey(0))


def make_optimizer(cfg: Any, learning_rate: float = 3e-4) -> optax.GradientTransformation:
    """Adam, after a clip of the joint norm if the config asks for one."""
    clip = optax.identity() if cfg.clip_grad_norm is None else optax.clip_by_global_norm(cfg.clip_grad_norm)
    return optax.chain(clip, optax.adam(learning_rate))


def make_update(
    peer: Peer,
    cfg: Any,
    target_rates: Mapping[str, float],
    optimizer: optax.GradientTransformation,
    lean: bool = False,
) -> Callable[[PeerState, Batch], tuple[PeerState, dict[str, jax.Array]]]:
    """The jitted update.

    Args:
        peer: the algorithm.
        cfg: the algorithm's config of ours.
        target_rates: Polyak rate of each slow copy.
        optimizer: what `make_optimizer` returned.
        lean: leave out the statistics of the gradient, and Adam over the slow copies.
    """

    @jax.jit
    def update(state: PeerState, batch: Batch) -> tuple[PeerState, dict[str, jax.Array]]:
        key, draw_key = jax.random.split(state.key)
        size, action_dim = batch["actions"].shape
        draws = sample(draw_key, peer.draws(size, action_dim, cfg))
        return update_with(peer, cfg, target_rates, optimizer, state._replace(key=key), batch, draws, lean)

    return update


def update_with(
    peer: Peer,
    cfg: Any,
    target_rates: Mapping[str, float],
    optimizer: optax.GradientTransformation,
    state: PeerState,
    batch: Batch,
    draws: Draws,
    lean: bool = False,
) -> tuple[PeerState, dict[str, jax.Array]]:
    """One update with given draws; see `make_update`."""

    def total(trained: dict[str, Tree]) -> tuple[jax.Array, dict[str, jax.Array]]:
        slow = jax.lax.stop_gradient(state.params["target"])
        loss, metrics = peer.loss(trained["online"], slow, batch, draws, cfg)
        return loss, metrics | {"loss": loss}

    trained = {"online": state.params["online"]} if lean else state.params
    grads, metrics = jax.grad(total, has_aux=True)(trained)
    if not lean:
        metrics |= statistics(grads)
    changes, moments = optimizer.update(grads, state.optimizer)
    moved = optax.apply_updates(trained, changes)
    # The slow copies move towards the weights before the step, as in the authors' code.
    slow = {
        name: jax.tree.map(lambda t, p, r=target_rates[name]: (1 - r) * t + r * p, copy, state.params["online"][name])
        for name, copy in state.params["target"].items()
    }
    return PeerState({"online": moved["online"], "target": slow}, moments, state.key), metrics


def statistics(grads: Any) -> dict[str, jax.Array]:
    """Largest and smallest entry of the gradient, and the sum of its tensors' norms."""
    leaves = jax.tree.leaves(grads)
    return {
        "grad/max": jnp.stack([leaf.max() for leaf in leaves]).max(),
        "grad/min": jnp.stack([leaf.min() for leaf in leaves]).min(),
        "grad/norm": jnp.stack([jnp.linalg.norm(leaf.reshape(-1)) for leaf in leaves]).sum(),
    }


def sample(key: jax.Array, shapes: Sequence[Shape]) -> list[jax.Array]:
    """Random numbers of the given kinds and shapes."""
    draws = []
    for (kind, shape), one in zip(shapes, jax.random.split(key, len(shapes)), strict=True):
        if kind == "normal":
            draws.append(jax.random.normal(one, shape))
        elif kind == "uniform":
            draws.append(jax.random.uniform(one, shape))
        else:
            draws.append(jax.random.randint(one, shape, 0, int(kind)))
    return draws


def interpolate(actions: jax.Array, x_0: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The point at time t of the straight path from x_0 to the actions, and the path's velocity."""
    return (1 - t) * x_0 + t * actions, actions - x_0


def td_loss(q: jax.Array, next_q: jax.Array, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """mean over ensemble and batch of valid (Q(s, a) - r - discount next_q)^2, and statistics of Q."""
    target = jax.lax.stop_gradient(batch["rewards"] + batch["discounts"] * next_q)
    loss = (batch["valid"] * jnp.square(q - target)).mean()
    return loss, {"critic/loss": loss, "critic/q_mean": q.mean(), "critic/q_max": q.max(), "critic/q_min": q.min()}


def flow_matching(predicted: jax.Array, velocity: jax.Array, batch: Batch) -> jax.Array:
    """mean over the batch of valid times the mean squared error of the velocity."""
    return (batch["valid"] * jnp.square(predicted - velocity).mean(-1)).mean()


def wait_for(state: PeerState) -> None:
    """Returns when the state has been computed; JAX computes while Python continues."""
    jax.block_until_ready(state)
