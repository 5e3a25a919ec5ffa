"""Fixed-step solvers of dx/dt = velocity(x, t). All have the same arguments and take any grid, forward or reverse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from flowpolicies.core.types import Velocity

Method = Literal["euler", "midpoint", "heun", "rk4"]


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
        x = x + h * velocity(x, t)
    return x


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
