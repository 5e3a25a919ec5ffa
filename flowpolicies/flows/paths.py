"""Probability paths between noise (t = 0) and data (t = 1)."""

from __future__ import annotations

from torch import Tensor

from flowpolicies.core.noise import Noise


def interpolate(actions: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """A random point of the straight path to each action: x_t = (1 - t) x_0 + t x_1.

    Draws x_0, then t (one per row).

    Args:
        actions: x_1 `[*, A]`.

    Returns:
        x_t `[*, A]`, t `[*, 1]`, and the velocity of the path, x_1 - x_0 `[*, A]`.
    """
    x_0, t = noise.actions(actions.shape[:-1]), noise.times(actions.shape[:-1])
    return (1 - t) * x_0 + t * actions, t, actions - x_0
