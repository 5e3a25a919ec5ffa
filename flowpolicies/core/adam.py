"""Adam as a function of named trees.

An update calls torch's functional Adam, between two moves of target copies and for single networks, on state that a
`torch.optim.Adam` owns and saves (docs/adr/0004).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.optim.adam import adam

from flowpolicies.core.types import Tree


class Moments(NamedTuple):
    """Adam's state, one tensor per parameter."""

    step: Tree
    exp_avg: Tree
    exp_avg_sq: Tree


def flatten(tree: Tree, names: Sequence[str]) -> list[Tensor]:
    """The tensors of the networks `names`, in order."""
    return [tensor for name in names for tensor in tree[name].values()]


def initial_moments(params: Tree) -> Moments:
    """Zero moments of the shapes and on the devices of the parameters."""
    step = {
        name: {key: torch.zeros((), dtype=torch.float32, device=p.device) for key, p in tree.items()}
        for name, tree in params.items()
    }
    first, second = (
        {name: {key: torch.zeros_like(p) for key, p in tree.items()} for name, tree in params.items()} for _ in range(2)
    )
    return Moments(step, first, second)


def adam_step(params: Tree, grads: Tree, moments: Moments, learning_rate: Tensor, names: Sequence[str]) -> None:
    """Moves `params` in place by one Adam step; networks outside `names` keep their weights and their moments.

    Args:
        learning_rate: scalar tensor `[]`, so that a GPU reads it where it is.
    """
    weights = flatten(params, names)
    adam(
        weights,
        [laid_out_as(weight, grad) for weight, grad in zip(weights, flatten(grads, names), strict=True)],
        flatten(moments.exp_avg, names),
        flatten(moments.exp_avg_sq, names),
        [],
        flatten(moments.step, names),
        foreach=False,
        capturable=False,
        differentiable=False,
        fused=True,
        has_complex=False,
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        lr=learning_rate,
        weight_decay=0.0,
        eps=1e-8,
        maximize=False,
    )


def laid_out_as(weight: Tensor, grad: Tensor) -> Tensor:
    """The gradient in the memory layout of its weight.

    Fused Adam does not look at layouts: with another one it would move other weights on a CPU, and stop with an error
    on a GPU. The compiled gradients of several seeds may have another one.
    """
    return grad if grad.stride() == weight.stride() else torch.empty_like(weight).copy_(grad)


def sgd_step(params: Tree, grads: Tree, moments: Moments, learning_rate: Tensor, names: Sequence[str]) -> None:
    """Moves `params` in place by -learning_rate * gradient, and counts the step; the other moments stay 0."""
    torch._foreach_sub_(flatten(params, names), torch._foreach_mul(flatten(grads, names), learning_rate))
    torch._foreach_add_(flatten(moments.step, names), 1)


def cosine_decay(done: Tensor, updates: int) -> Tensor:
    """(1 + cos(pi min(k, K) / K)) / 2 after k of K updates; the rule of optax."""
    return 0.5 * (1 + torch.cos(math.pi * (done / updates).clamp(max=1.0)))


def clip_by_global_norm(grads: Tree, max_norm: float) -> tuple[Tree, Tensor]:
    """Scales gradients to a joint norm of at most `max_norm`, and returns their norm before; the rule of optax."""
    norm = vector_norm(torch.stack([vector_norm(g) for g in flatten(grads, list(grads))]))
    scale = (max_norm / norm).clamp(max=1.0)
    return {name: {key: g * scale for key, g in tree.items()} for name, tree in grads.items()}, norm
