"""Samplers of diffusions with finitely many noise levels."""

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
    """x ~ N(0, I), then one reverse step per noise level, clipped to [-1, 1].

    Examples:
        >>> from flowpolicies import BCDiffusion
        >>> from flowpolicies.samplers import Denoise
        >>> model = BCDiffusion(env="Pendulum-v1")
        >>> model.policy.sampler = Denoise(rule="ddim")
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    network: str = "actor_diffusion"
    """Name of the network that predicts the noise, (observations, x, index) -> eps."""
    steps: int = 5
    """Number T of noise levels, and so of network calls per action."""
    schedule: BetaSchedule = "vp"
    """Noise schedule of the diffusion: how noise grows with the level."""
    first_index: Literal[0, 1] = 1
    """Index of the least noisy level, as the network receives it."""
    rule: ReverseRule = "ancestral"
    """Rule of the reverse step; see `flowpolicies.flows.REVERSE_RULES`."""
    temperature: float = 1.0
    """Scale of the noise that the reverse steps add."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        x = noise.actions(observations.shape[:-1])
        diffusion = Diffusion(self.steps, self.schedule, self.first_index)
        predict = nets[self.network].given(observations)
        states, _ = diffusion.reverse(predict, x, noise, self.rule, temperature=self.temperature)
        return states[-1].clamp(-1, 1)
