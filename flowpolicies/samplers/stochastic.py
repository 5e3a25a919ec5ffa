"""Samplers that follow a stochastic process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.views import View
from flowpolicies.flows import memoryless_sde, unit_grid


@final
@dataclass(frozen=True)
class MemorylessSDE:
    """x_0 ~ N(0, I), then the memoryless SDE of adjoint matching (`flows.memoryless_sde`), clipped at the end.

    With many steps it has the flow's distribution. Noise enters at every step, so x_0 does not determine the action.

    Examples:
        >>> from flowpolicies import FlowPolicy
        >>> from flowpolicies.samplers import MemorylessSDE
        >>> policy = FlowPolicy.from_pretrained("flowpolicies/pointmaze-medium-qflow")
        >>> policy.sampler = MemorylessSDE(steps=20)
        >>> policy.predict(policy.observation_space.sample())[0].shape
        (2,)
    """

    field: str = "actor_flow"
    """Name of the network that is the velocity field."""
    base: str = "actor_flow"
    """Name of the network that is the velocity field of the last step."""
    steps: int = 10
    """Number of steps of the SDE."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        x = noise.actions(observations.shape[:-1])
        policy, base = nets[self.field].given(observations), nets[self.base].given(observations)
        return memoryless_sde(policy, base, x, unit_grid(x, self.steps), noise)[0][-1].clamp(-1, 1)
