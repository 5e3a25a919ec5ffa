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

    Examples:
        >>> from flowpolicies import FQL
        >>> batch = FQL(dataset="pendulum:mixed", horizon=4).transitions.sample(32)
        >>> batch.observations.shape, batch.actions.shape, batch.rewards.shape  # four actions of one number each
        (torch.Size([32, 3]), torch.Size([32, 4]), torch.Size([32]))
    """

    observations: Tensor
    """The flattened observations, `[B, O]`."""
    actions: Tensor
    """The action (chunks) of the data, `[B, A]` in [-1, 1]."""
    next_observations: Tensor
    """The observations H steps later, `[B, O]`."""
    next_actions: Tensor
    """The action (chunks) of the data that start where `actions` end, `[B, A]`."""
    rewards: Tensor
    """Discounted sums of rewards over the chunk, `[B]`."""
    discounts: Tensor
    """Factors of the next value, gamma^H * (1 - terminal), `[B]`."""
    valid: Tensor
    """Whether the chunk lies inside its episode, 1 or 0, `[B]`."""
    action_mask: Tensor
    """Whether a coordinate of the chunk lies inside its episode, 1, or after its end, 0, `[B, A]`."""
