"""Stochastic processes whose end has the distribution of a flow's end."""

from __future__ import annotations

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.types import Velocity


def memoryless_sigma(t: Tensor, h: Tensor) -> Tensor:
    """sigma(t) = sqrt(2 (1 - t + h) / (t + h)); both terms are shifted by the step h, so that it is finite at 0.

    With this noise x_1 is independent of x_0, which is what makes adjoint matching unbiased ("memoryless",
    Domingo-Enrich et al., "Adjoint Matching", https://arxiv.org/abs/2409.08861).
    """
    return (2 * (1 - t + h) / (t + h)).sqrt()


def memoryless_sde(
    policy: Velocity, base: Velocity, x: Tensor, grid: Tensor, noise: Noise
) -> tuple[list[Tensor], list[Tensor]]:
    """x_{i+1} = x_i + h (2 v(x_i, t_i) - x_i / (t_i + h)) + sqrt(h) sigma_i eps_i; the last step is Euler's, of `base`.

    Draws one eps per step. The end is not clipped.

    Args:
        policy: v, the field that is fine-tuned; gradient flows through it, and through every state.
        base: v_base, the field of the last step.
        x: x_0 `[*, A]`.
        grid: times t_i `[T + 1, *, 1]`, ascending from 0.

    Returns:
        The states x_0..x_T, and v(x_i, t_i) for i = 0..T-2.
    """
    states, velocities = [x], []
    for i, (t, h) in enumerate(zip(grid[:-1], grid.diff(dim=0), strict=True)):
        # As in QAM's code, the last step draws an eps that it does not use, and follows `base`
        # (docs/algorithms/qam.md, "Where code and paper differ").
        eps = noise.actions(x.shape[:-1])
        if i == len(grid) - 2:
            x = x + h * base(x, t)
        else:
            velocities.append(policy(x, t))
            x = x + h * (2 * velocities[-1] - x / (t + h)) + h.sqrt() * memoryless_sigma(t, h) * eps
        states.append(x)
    return states, velocities
