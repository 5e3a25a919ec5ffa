"""Gradients of critics with respect to actions."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.func import grad


def action_gradient(critic: Callable[..., Tensor], observations: Tensor, actions: Tensor, *times: Tensor) -> Tensor:
    """grad_a mean_e Q_e(s, a), row by row, `[*, A]`.

    Args:
        critic: (observations, actions, *times) -> `[E, *]`.
    """
    return grad(lambda a: critic(observations, a, *times).mean(0).sum())(actions)  # type: ignore[no-any-return]
