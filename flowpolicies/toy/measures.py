"""Numbers about samples beside data: reward, distances between distributions, and what lies off the support."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowpolicies.toy.datasets import draw_points

HELD_OUT = 2000
"""Number of held-out points, and of samples that are compared with them."""
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0)
"""Widths of the Gaussian kernels of the MMD, in the units of the box; the kernel is their mean."""
QUANTILE = 0.99
"""Share of held-out points that count as lying on the support."""


class Measures(NamedTuple):
    """What is measured of samples."""

    reward: float
    """Mean reward, where a sample has the reward of the nearest point of the training data."""
    mmd: float
    """Maximum mean discrepancy to held-out points (biased estimate, not squared), with the kernel of `BANDWIDTHS`."""
    energy: float
    """Energy distance to held-out points, 2 E|X - Y| - E|X - X'| - E|Y - Y'|."""
    off_support: float
    """Share of samples farther from the nearest training point than 99 % of the held-out points are."""
    covered: float
    """Share of held-out points that have a sample as near as that; a collapse onto a part of the data lowers it."""


def measure(samples: np.ndarray, dataset: str) -> Measures:
    """Compares samples `[N, 2]` with the points of a dataset."""
    data, held_out = draw_points(dataset), draw_points(dataset, HELD_OUT, seed=1)
    given, seen, unseen = (torch.as_tensor(one) for one in (samples, data.positions, held_out.positions))
    distances = torch.cdist(given, seen)
    threshold = support_threshold(dataset)
    return Measures(
        reward=float(data.rewards[distances.argmin(1).numpy()].mean()),
        mmd=mmd(given, unseen),
        energy=energy_distance(given, unseen),
        off_support=float((distances.amin(1) > threshold).float().mean()),
        covered=float((torch.cdist(unseen, given).amin(1) <= threshold).float().mean()),
    )


@cache
def support_threshold(dataset: str) -> float:
    """The distance to the nearest training point that 99 % of held-out points do not exceed."""
    data, held_out = draw_points(dataset), draw_points(dataset, HELD_OUT, seed=1)
    nearest = torch.cdist(torch.as_tensor(held_out.positions), torch.as_tensor(data.positions)).amin(1)
    return float(torch.quantile(nearest, QUANTILE))


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of samples `[N, D]` and `[M, D]`; 0 for equal samples."""
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())


def mmd(x: Tensor, y: Tensor) -> float:
    """The maximum mean discrepancy of samples `[N, D]` and `[M, D]`, with the mean of Gaussian kernels."""
    return float((_kernel(x, x) + _kernel(y, y) - 2 * _kernel(x, y)).clamp(min=0).sqrt())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    squares = torch.cdist(x, y).square()
    return torch.stack([torch.exp(-squares / (2 * width**2)).mean() for width in BANDWIDTHS]).mean()
