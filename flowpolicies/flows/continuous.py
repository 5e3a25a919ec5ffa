"""Diffusion in continuous time: the variance-preserving schedule, and DPM-Solver++ (rql_diffusion_family 0.2, 9).

x_t = alpha(t) x_1 + sigma(t) eps. Diffusion time runs against flow time: at t = 0 there is the action, at t = 1 noise.
A network predicts eps, and the score of x_t is -eps / sigma(t).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from flowpolicies.core.types import Velocity

EARLIEST = 1e-3
"""The time at which sampling ends and below which nothing is trained, as the score explodes at 0."""


class NoiseLevel(NamedTuple):
    """The schedule at a time, `[*, 1]` each."""

    alpha: Tensor
    """What is left of the action."""
    sigma: Tensor
    """sqrt(1 - alpha^2), the noise."""
    log_ratio: Tensor
    """lambda = log(alpha / sigma), which falls with t; equal steps of it are equally hard."""


def noise_level(t: Tensor) -> NoiseLevel:
    """log alpha(t) = -t^2 (20 - 0.1) / 4 - 0.1 t / 2, the integral of a noise rate that grows from 0.1 to 20."""
    log_alpha = -(t.square()) * (20.0 - 0.1) / 4 - 0.1 * t / 2
    sigma = (-torch.expm1(2 * log_alpha)).sqrt()
    return NoiseLevel(log_alpha.exp(), sigma, log_alpha - sigma.log())


def trained_times(uniform: Tensor) -> Tensor:
    """Uniform draws from [0, 1) as times in [`EARLIEST`, 1)."""
    return EARLIEST + (1 - EARLIEST) * uniform


def dpm_solver(predict: Velocity, x: Tensor, grid: Tensor) -> Tensor:
    """Single-step DPM-Solver++ of order 2 (Lu et al., https://arxiv.org/abs/2211.01095), one evaluation per interval.

    Two intervals s > u > t of the grid make one step; with D the predicted action, h = lambda_t - lambda_s and
    r = (lambda_u - lambda_s) / h:

        x_u = (sigma_u / sigma_s) x_s - alpha_u (e^{-r h} - 1) D_s
        x_t = (sigma_t / sigma_s) x_s - alpha_t (e^{-h} - 1) (D_s + (D_u - D_s) / (2 r))

    An interval that is left over at the end makes a step of first order, which is the first line.

    Args:
        predict: (x `[*, A]`, t `[*, 1]`) -> eps `[*, A]`; with guidance by an energy f, eps - sigma grad_x f.
        x: `[*, A]` at `grid[0]`.
        grid: descending diffusion times `[intervals + 1, *, 1]`.

    Returns:
        `[*, A]` at `grid[-1]`, not clipped.
    """
    points = list(grid)
    for s, u, t in zip(points[:-2:2], points[1:-1:2], points[2::2], strict=True):
        start, middle, end = noise_level(s), noise_level(u), noise_level(t)
        clean = _clean(predict, x, s, start)
        bent = _clean(predict, _step(x, clean, start, middle), u, middle)
        r = (middle.log_ratio - start.log_ratio) / (end.log_ratio - start.log_ratio)
        x = _step(x, clean + (bent - clean) / (2 * r), start, end)
    if len(points) % 2 == 0:
        start = noise_level(points[-2])
        x = _step(x, _clean(predict, x, points[-2], start), start, noise_level(points[-1]))
    return x


def _clean(predict: Velocity, x: Tensor, t: Tensor, level: NoiseLevel) -> Tensor:
    """The action, if the prediction is the noise in x."""
    return (x - level.sigma * predict(x, t)) / level.alpha


def _step(x: Tensor, clean: Tensor, start: NoiseLevel, end: NoiseLevel) -> Tensor:
    """Exact from one time to another, if the action were known."""
    return (end.sigma / start.sigma) * x - end.alpha * torch.expm1(start.log_ratio - end.log_ratio) * clean
