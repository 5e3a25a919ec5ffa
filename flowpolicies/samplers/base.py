"""The protocol of samplers."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.views import View


class Sampler(Protocol):
    """Acting is data: a frozen dataclass that names the networks it uses.

    The view chooses the algorithm: on `nets.frozen` a sampler gives bootstrap actions, on `nets.online` the same
    sampler is backpropagation through time, on `nets.target` it is the slow actor.
    """

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        """Actions `[*, A]` in [-1, 1] for observations `[*, O]`."""
        ...
