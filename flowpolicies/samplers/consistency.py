"""Samplers of consistency models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.views import View
from flowpolicies.flows.consistency import LARGEST, SMALLEST, consistency_function

LAST = 2.0
"""Smallest noise level of a sampler of several steps."""


@final
@dataclass(frozen=True)
class Consistency:
    """x = f(80 z, 80), then x = f(x + sqrt(sigma^2 - 0.002^2) z, sigma) at further levels, clipped to [-1, 1].

    The levels are evenly spaced from 80 to 2. Each has a fresh z.

    Examples:
        >>> from flowpolicies import CAC
        >>> from flowpolicies.samplers import Consistency
        >>> model = CAC(env="Pendulum-v1")
        >>> model.policy.sampler = Consistency()
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    network: str = "actor_onestep"
    """Name of the network F of the consistency function, (observations, x, sigma) -> `[*, A]`."""
    steps: int = 2
    """Number T of noise levels, and so of network calls per action."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        network, shape = nets[self.network].given(observations), observations.shape[:-1]
        z = noise.actions(shape)
        x = consistency_function(network, LARGEST * z, torch.full_like(z[..., :1], LARGEST))
        for i in range(1, self.steps):
            sigma = LARGEST + i * (LAST - LARGEST) / (self.steps - 1)
            noisy = x + (sigma**2 - SMALLEST**2) ** 0.5 * noise.actions(shape)
            x = consistency_function(network, noisy, torch.full_like(z[..., :1], sigma))
        return x.clamp(-1, 1)
