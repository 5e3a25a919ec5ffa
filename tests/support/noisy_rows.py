"""What the tests of DAC and QSM share: two noised actions in one dimension, in double precision, and two critics."""

from __future__ import annotations

import math

import torch
from batches import batch
from torch import Tensor

from flowpolicies.core import Batch, ReplayedNoise

ROWS = ((0.5, 0, 0.7), (-0.2, 3, -1.1))
"""Action, noise level (counted from 0) and eps."""


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(-1)


ACTIONS, LEVELS, EPS = (column(*values) for values in zip(*ROWS, strict=True))


def rows(**columns: Tensor) -> Batch:
    """The actions, with reward 3 and discount 0.9."""
    ones = torch.ones(2, dtype=torch.float64)
    return batch(ACTIONS, rewards=3 * ones, discounts=0.9 * ones)._replace(**columns)


def replay() -> ReplayedNoise:
    """The draws that noise the actions."""
    return ReplayedNoise(1, [LEVELS.flatten().long(), EPS])


def alphas(steps: int) -> list[float]:
    """The VP schedule, least noisy level first."""
    return [math.exp(-0.1 / steps - (10 - 0.1) * (2 * t - 1) / (2 * steps**2)) for t in range(1, steps + 1)]


def abar(level: int, steps: int) -> float:
    return math.prod(alphas(steps)[: level + 1])


def noised(action: float, level: int, eps: float, steps: int) -> float:
    return math.sqrt(abar(level, steps)) * action + math.sqrt(1 - abar(level, steps)) * eps


def parabolas(s: Tensor, a: Tensor) -> Tensor:
    """Q_1 = 3 a^2, Q_2 = -a: their mean has the gradient 3 a - 1/2."""
    return torch.stack([3 * a.square(), -a]).squeeze(-1)
