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

    Examples:
        >>> from dataclasses import dataclass
        >>> from flowpolicies import FlowPolicy
        >>> from flowpolicies.samplers import Integrate
        >>> @dataclass(frozen=True)
        ... class Gentle:  # a sampler of your own: half of the action
        ...     def __call__(self, nets, observations, noise):
        ...         return 0.5 * Integrate()(nets, observations, noise)
        >>> policy = FlowPolicy.from_pretrained("flowpolicies/pointmaze-medium-qflow")
        >>> policy.sampler = Gentle()
        >>> bool(abs(policy.predict(policy.observation_space.sample())[0]).max() <= 0.5)
        True
    """

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        """Actions `[*, A]` in [-1, 1] for observations `[*, O]`."""
        ...
