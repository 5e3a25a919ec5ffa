"""Samplers that call a network once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.views import BoundNetwork, View


@final
@dataclass(frozen=True)
class OneStep:
    """clip(mu(s, z)), z ~ N(0, I): a distilled one-step policy."""

    actor: str = "actor_onestep"
    """The one-step policy."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        return nets[self.actor](observations, noise.actions(observations.shape[:-1])).clamp(-1, 1)


def _normal(actor: BoundNetwork, observations: Tensor, noise: Noise, temperature: float) -> Tensor:
    mean, log_std = actor(observations)
    sample: Tensor = mean + temperature * log_std.exp() * noise.actions(observations.shape[:-1])
    return sample


@final
@dataclass(frozen=True)
class Gaussian:
    """clip(mu(s) + T sigma(s) eps), eps ~ N(0, I)."""

    actor: str = "actor"
    """The Gaussian, observations -> mean and log-std."""
    temperature: float = 1.0
    """T, a factor of the standard deviation; 0 acts with the mean."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        return _normal(nets[self.actor], observations, noise, self.temperature).clamp(-1, 1)


@final
@dataclass(frozen=True)
class TanhGaussian:
    """tanh(mu(s) + T sigma(s) eps), eps ~ N(0, I): the policy of SAC."""

    actor: str = "actor"
    """The Gaussian before it is squashed, observations -> mean and log-std."""
    temperature: float = 1.0
    """T, a factor of the standard deviation; 0 acts with tanh of the mean."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        return _normal(nets[self.actor], observations, noise, self.temperature).tanh()


@final
@dataclass(frozen=True)
class Perturbed:
    """clip(mu(s) + clip(sigma eps, -c, c)), eps ~ N(0, I): the smoothed target policy of TD3."""

    actor: str = "actor"
    """A Gaussian of which only the mean is used, observations -> mean and log-std."""
    std: float = 0.2
    """sigma."""
    clip: float = 0.5
    """c, the largest perturbation of a coordinate."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        mean, _ = nets[self.actor](observations)
        perturbed: Tensor = mean + (self.std * noise.actions(observations.shape[:-1])).clamp(-self.clip, self.clip)
        return perturbed.clamp(-1, 1)
