"""Grids of flow times, along which a solver integrates. A descending grid gives the reverse flow."""

from __future__ import annotations

import torch
from torch import Tensor


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
