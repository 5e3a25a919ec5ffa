"""Samplers that call a network once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.views import View


@final
@dataclass(frozen=True)
class OneStep:
    """clip(mu(s, z)), z ~ N(0, I): a distilled one-step policy."""

    actor: str = "actor_onestep"
    """The one-step policy."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        return nets[self.actor](observations, noise.actions(observations.shape[:-1])).clamp(-1, 1)
