"""Weights by network and parameter name, as the learner keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from flowpolicies.core.types import Tree


def weights(modules: Mapping[str, nn.Module]) -> Tree:
    """Copies of the parameters."""
    return {name: {key: p.detach().clone() for key, p in module.named_parameters()} for name, module in modules.items()}


def clone(tree: Tree) -> Tree:
    return {name: {key: tensor.clone() for key, tensor in part.items()} for name, part in tree.items()}


def stack(trees: Sequence[Tree]) -> Tree:
    """With a leading seed axis."""
    return {n: {k: torch.stack([tree[n][k] for tree in trees]) for k in trees[0][n]} for n in trees[0]}


def flat(tree: Tree) -> Tensor:
    """A copy of all entries, in one row."""
    return torch.cat([tensor.flatten() for part in tree.values() for tensor in part.values()])
