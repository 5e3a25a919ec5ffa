"""Types that every layer shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

Velocity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(x `[*, A]`, t `[*, 1]`) -> dx/dt `[*, A]`."""

Metrics: TypeAlias = dict[str, Tensor]
"""Name -> scalar tensor `[]`."""

Loss: TypeAlias = tuple[Tensor, Metrics]
"""A scalar `[]` to minimise, and what to log beside it."""

Tree: TypeAlias = dict[str, dict[str, Tensor]]
"""Network name -> parameter name -> tensor."""


class Batch(NamedTuple):
    """One minibatch of transitions; a pytree for `vmap` and `torch.compile`.

    With action chunks of length H, `A` is H times the primitive action dimension (time-major), `rewards` is the
    discounted sum over the chunk and `discounts` is gamma^H times the mask.
    """

    observations: Tensor
    """[B, O], the flattened observation."""
    actions: Tensor
    """[B, A] in [-1, 1]."""
    next_observations: Tensor
    """[B, O], H steps later."""
    next_actions: Tensor
    """[B, A], the dataset's action (chunk) that starts where this one ends."""
    rewards: Tensor
    """[B]."""
    discounts: Tensor
    """[B], gamma^H * (1 - terminal)."""
    valid: Tensor
    """[B], 1 if the chunk lies inside its episode, else 0."""
    action_mask: Tensor
    """[B, A], 0 where a chunk was padded."""
