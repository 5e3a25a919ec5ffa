"""Samplers that edit the actions of another sampler."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import final

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.views import View
from flowpolicies.samplers.base import Sampler
from flowpolicies.samplers.flow import Integrate


@final
@dataclass(frozen=True)
class Edit:
    """clip(a + scale e), a from the inner sampler and e in (-1, 1) sampled from a tanh-normal policy on (s, a).

    Examples:
        >>> from flowpolicies import FEdit
        >>> from flowpolicies.samplers import Edit, Integrate
        >>> model = FEdit(env="Pendulum-v1")
        >>> model.policy.sampler = Edit(Integrate(), scale=0.1)
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    inner: Sampler = dataclasses.field(default_factory=Integrate)
    """Sampler of the actions that are edited."""
    scale: float = 0.2
    """Size of the largest edit of each coordinate of the action."""
    actor: str = "edit_actor"
    """Name of the edit policy, (observations, actions, eps) -> edits."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        actions = self.inner(nets, observations, noise)
        edits = nets[self.actor](observations, actions, noise.actions(observations.shape[:-1]))[0]
        return (actions + self.scale * edits).clamp(-1, 1)
