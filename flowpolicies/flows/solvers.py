"""The straight path between noise (t = 0) and data (t = 1), grids of flow times, and fixed-step solvers.

Solvers integrate dx/dt = velocity(x, t). All have the same arguments and take any grid; a descending grid gives the
reverse flow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.types import Velocity
from flowpolicies.core.views import GivenObservations, is_transformed

Method = Literal["euler", "midpoint", "heun", "rk4"]

ROWS = 32
"""Numbers of rows that are still on their way are rounded up to multiples of this."""


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


def unit_grid(x: Tensor, steps: int) -> Tensor:
    """From 0 to 1, `[steps + 1, *, 1]` for points x `[*, A]`."""
    times = torch.linspace(0.0, 1.0, steps + 1, device=x.device, dtype=x.dtype)
    return times.view(-1, *[1] * x.ndim).expand(-1, *x.shape[:-1], 1)


def uniform_grid(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Equal steps from `start` to `end`, both `[*, 1]`; descending if `end` is smaller. `[steps + 1, *, 1]`."""
    return start + (end - start) * _fractions(start, steps)


def remaining_grid(start: Tensor, steps: int) -> Tensor:
    """Steps of at most 1/steps from `start` `[*, 1]` up to 1; rows that arrive early stay there. `[steps + 1, *,
    1]`."""
    return (start + _fractions(start, steps)).clamp(max=1.0)


def leading_grid(end: Tensor, steps: int) -> Tensor:
    """Steps of at most 1/steps from 0 up to `end` `[*, 1]`; rows that arrive early stay there. `[steps + 1, *, 1]`."""
    return torch.minimum(_fractions(end, steps), end)


def _fractions(like: Tensor, steps: int) -> Tensor:
    return torch.linspace(0.0, 1.0, steps + 1, device=like.device, dtype=like.dtype).view(-1, *[1] * like.ndim)


def euler(velocity: Velocity, x: Tensor, grid: Tensor) -> Tensor:
    """x_{i+1} = x_i + h v(x_i, t_i). First order, one evaluation per step.

    Args:
        velocity: (x `[*, A]`, t `[*, 1]`) -> dx/dt `[*, A]`.
        x: `[*, A]`, at `grid[0]`.
        grid: times `[steps + 1, *, 1]`.

    Returns:
        `[*, A]`, at `grid[-1]`.
    """
    for t, h in zip(grid[:-1], grid.diff(dim=0), strict=True):
        x = torch.addcmul(x, h, velocity(x, t))
    return x


def euler_until_arrival(policy: GivenObservations, x: Tensor, grid: Tensor) -> Tensor:
    """`euler` on a grid whose rows stay where they have arrived, which are not evaluated any more.

    On a GPU, and in code that is compiled or vectorised, all rows are evaluated in every step; a row that stays has
    steps of length 0.

    Args:
        policy: a velocity field at observations `[B, O]`.
        x: `[B, A]`, at `grid[0]`.
        grid: `[steps + 1, B, 1]`, from `remaining_grid` or `leading_grid`.
    """
    if is_transformed() or x.is_cuda:
        return euler(policy, x, grid)
    steps = (grid[:-1] != grid[-1]).sum(0).squeeze(-1)
    order = steps.argsort(descending=True)
    moving = (steps > torch.arange(len(grid) - 1)[:, None]).sum(-1)
    counts = [min(len(x), -(-n // ROWS) * ROWS) for n in moving.tolist()]  # Few shapes of matrix products occur.
    x, grid, policy = x[order], grid[:, order], policy.rows(order)
    for n, t, h in zip(counts, grid[:-1], grid.diff(dim=0), strict=True):
        if n:
            x = torch.cat([x[:n] + h[:n] * policy.rows(slice(n))(x[:n], t[:n]), x[n:]])
    return x[order.argsort()]


def midpoint(velocity: Velocity, x: Tensor, grid: Tensor) -> Tensor:
    """x_{i+1} = x_i + h v(x_i + h/2 v(x_i, t_i), t_i + h/2). Second order, two evaluations per step."""
    for t, h in zip(grid[:-1], grid.diff(dim=0), strict=True):
        x = x + h * velocity(x + 0.5 * h * velocity(x, t), t + 0.5 * h)
    return x


def heun(velocity: Velocity, x: Tensor, grid: Tensor) -> Tensor:
    """x_{i+1} = x_i + h/2 (v_i + v(x_i + h v_i, t_{i+1})). Second order, two evaluations per step."""
    for t, h in zip(grid[:-1], grid.diff(dim=0), strict=True):
        v = velocity(x, t)
        x = x + 0.5 * h * (v + velocity(x + h * v, t + h))
    return x


def rk4(velocity: Velocity, x: Tensor, grid: Tensor) -> Tensor:
    """The classical Runge-Kutta method. Fourth order, four evaluations per step."""
    for t, h in zip(grid[:-1], grid.diff(dim=0), strict=True):
        k_1 = velocity(x, t)
        k_2 = velocity(x + 0.5 * h * k_1, t + 0.5 * h)
        k_3 = velocity(x + 0.5 * h * k_2, t + 0.5 * h)
        k_4 = velocity(x + h * k_3, t + h)
        x = x + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4)
    return x


SOLVERS: dict[Method, Callable[[Velocity, Tensor, Tensor], Tensor]] = {
    "euler": euler,
    "midpoint": midpoint,
    "heun": heun,
    "rk4": rk4,
}
