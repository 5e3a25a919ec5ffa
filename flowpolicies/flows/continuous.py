"""Diffusion in continuous time: the variance-preserving schedule, and DPM-Solver++.

x_t = alpha(t) x_1 + sigma(t) eps. Diffusion time runs against flow time: the action is at t = 0, noise at t = 1. A
network predicts eps, and the score of x_t is -eps / sigma(t).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from flowpolicies.core.types import Velocity

EARLIEST = 1e-3
"""Smallest diffusion time in training and sampling, because the score diverges at 0."""


class NoiseLevel(NamedTuple):
    """The schedule at a diffusion time, `[*, 1]` each."""

    alpha: Tensor
    """Factor alpha of the action."""
    sigma: Tensor
    """Standard deviation of the noise, sqrt(1 - alpha^2)."""
    log_ratio: Tensor
    """Half the log signal-to-noise ratio, lambda = log(alpha / sigma), which falls with t; the solver's steps are
    differences of it."""


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

    The last interval is a step of first order, by the first formula; for an even number of intervals the last two are.

    Args:
        predict: (x `[*, A]`, t `[*, 1]`) -> eps `[*, A]`; with guidance by an energy f it is eps - sigma grad_x f.
        x: `[*, A]` at `grid[0]`.
        grid: descending diffusion times `[intervals + 1, *, 1]`.

    Returns:
        `[*, A]` at `grid[-1]`, not clipped.
    """
    points = list(grid)
    last = 1 + len(points) % 2  # Number of steps of first order.
    paired = points[:-last]
    for s, u, t in zip(paired[:-2:2], paired[1:-1:2], paired[2::2], strict=True):
        start, middle, end = noise_level(s), noise_level(u), noise_level(t)
        clean = _clean(predict, x, s, start)
        clean_middle = _clean(predict, _step(x, clean, start, middle), u, middle)
        r = (middle.log_ratio - start.log_ratio) / (end.log_ratio - start.log_ratio)
        x = _step(x, clean + (clean_middle - clean) / (2 * r), start, end)
    for s, t in pairwise(points[-last - 1 :]):
        start = noise_level(s)
        x = _step(x, _clean(predict, x, s, start), start, noise_level(t))
    return x


def _clean(predict: Velocity, x: Tensor, t: Tensor, level: NoiseLevel) -> Tensor:
    """The estimate of the action, if `predict` gives the noise in x."""
    return (x - level.sigma * predict(x, t)) / level.alpha


def _step(x: Tensor, clean: Tensor, start: NoiseLevel, end: NoiseLevel) -> Tensor:
    """The solution from one time to another for a constant estimate of the action."""
    return (end.sigma / start.sigma) * x - end.alpha * torch.expm1(start.log_ratio - end.log_ratio) * clean
