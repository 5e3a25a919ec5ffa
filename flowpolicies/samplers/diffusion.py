"""Samplers that denoise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.views import View
from flowpolicies.flows import BetaSchedule, Diffusion, ReverseRule


@final
@dataclass(frozen=True)
class Denoise:
    """x ~ N(0, I), then one reverse step per noise level, clipped to [-1, 1]."""

    network: str = "actor_diffusion"
    """Who predicts the noise, (observations, x, index) -> eps."""
    steps: int = 5
    """Number of noise levels T."""
    schedule: BetaSchedule = "vp"
    """How noise grows."""
    first_index: Literal[0, 1] = 1
    """Index of the least noisy level, as the network is fed it."""
    rule: ReverseRule = "ancestral"
    """The reverse step; see `flowpolicies.flows.REVERSE_RULES`."""
    temperature: float = 1.0
    """Scale of the noise that the steps add."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        x = noise.actions(observations.shape[:-1])
        diffusion = Diffusion(self.steps, self.schedule, self.first_index)
        predict = nets[self.network].given(observations)
        states, _ = diffusion.reverse(predict, x, noise, self.rule, temperature=self.temperature)
        return states[-1].clamp(-1, 1)
