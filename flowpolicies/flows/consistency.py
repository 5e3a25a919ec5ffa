"""Consistency models: every point of a path from noise leads to the same action.

Song et al., "Consistency Models", https://arxiv.org/abs/2303.01469, in the form of CAC (Ding, Jin,
https://arxiv.org/abs/2309.16984). Here x_sigma = x_1 + sigma z, z ~ N(0, I): noise levels are standard deviations, from
`SMALLEST` to `LARGEST`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from flowpolicies.core.noise import Draw, Noise
from flowpolicies.core.types import Velocity

SMALLEST, LARGEST = 0.002, 80.0
"""Smallest and largest noise level."""
DATA_VARIANCE = 0.25
"""Variance of the data that c_skip and c_out assume."""
FEWEST, MOST = 2, 150
"""Number of noise levels at the beginning of a curriculum, and at its end."""


class Neighbors(NamedTuple):
    """Two consecutive noise levels, `[*, 1]` each."""

    less: Tensor
    more: Tensor


def consistency_function(network: Velocity, x: Tensor, sigma: Tensor) -> Tensor:
    """f(x, sigma) = c_skip x + c_out F(x, sigma), `[*, A]`; f(x, SMALLEST) = x whatever the network F says.

    c_skip = v / ((sigma - SMALLEST)^2 + v) and c_out = sqrt(v) (sigma - SMALLEST) / sqrt(sigma^2 + v), v = 1/4.

    Args:
        network: (x `[*, A]`, sigma `[*, 1]`) -> `[*, A]`.
    """
    above = sigma - SMALLEST
    c_skip = DATA_VARIANCE / (above.square() + DATA_VARIANCE)
    c_out = math.sqrt(DATA_VARIANCE) * above / (sigma.square() + DATA_VARIANCE).sqrt()
    return c_skip * x + c_out * network(x, sigma)


def boundaries(index: Tensor, count: Tensor | int) -> Tensor:
    """Noise level number `index` of `count` levels, evenly spaced in the seventh root from SMALLEST to LARGEST."""
    low, high = math.pow(SMALLEST, 1 / 7), math.pow(LARGEST, 1 / 7)
    return (low + index / (count - 1) * (high - low)).pow(7)


def curriculum(updates: Tensor, period: int) -> Tensor:
    """Number of noise levels after so many updates, an integer `[]`; it starts again after each period.

    N = ceil(sqrt(i (150^2 - 2^2) / period + 2^2) - 1) + 1, i = updates mod period. It is computed in double precision:
    in single precision N changes one update early or late.
    """
    # As in CAC's code, the count starts again after each period
    # (docs/algorithms/cac.md, "Where code and paper differ").
    i = updates.double().remainder(period)
    growth = (i * ((MOST**2 - FEWEST**2) / period) + FEWEST**2).sqrt()
    return ((growth - 1).ceil() + 1).long()


def random_neighbors(noise: Noise, batch_shape: torch.Size, count: Tensor) -> Neighbors:
    """Levels n and n + 1 of `count`, n uniform over 0..count - 2. Drawn as one uniform number, because `count` is a
    tensor."""
    u = noise.draw(Draw("uniform", (*batch_shape, 1)))
    n = torch.minimum((u * (count - 1)).floor(), count - 2)
    return Neighbors(boundaries(n, count), boundaries(n + 1, count))
