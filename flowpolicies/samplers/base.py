"""The protocol of samplers."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.views import View


class Sampler(Protocol):
    """How actions are sampled from networks: a frozen dataclass that names the networks it uses.

    The view decides what it computes: on `nets.frozen` a sampler gives actions without gradient to the weights, on
    `nets.online` gradient flows through all its steps, and on `nets.target` it samples from the slow actor.
    """

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        """Actions `[*, A]` in [-1, 1] for observations `[*, O]`."""
        ...
