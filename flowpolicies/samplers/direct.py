"""Samplers that call one network once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.views import BoundNetwork, View


@final
@dataclass(frozen=True)
class OneStep:
    """clip(mu(s, z)), z ~ N(0, I): a distilled one-step policy.

    Examples:
        >>> from flowpolicies import FQL
        >>> from flowpolicies.samplers import OneStep
        >>> model = FQL(env="Pendulum-v1")
        >>> model.policy.sampler = OneStep("actor_onestep")
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    actor: str = "actor_onestep"
    """Name of the one-step policy, (observations, noise) -> actions."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        return nets[self.actor](observations, noise.actions(observations.shape[:-1])).clamp(-1, 1)


def _normal(actor: BoundNetwork, observations: Tensor, noise: Noise, temperature: float) -> Tensor:
    mean, log_std = actor(observations)
    sample: Tensor = mean + temperature * log_std.exp() * noise.actions(observations.shape[:-1])
    return sample


@final
@dataclass(frozen=True)
class Gaussian:
    """clip(mu(s) + T sigma(s) eps), eps ~ N(0, I).

    Examples:
        >>> from flowpolicies import IQL
        >>> from flowpolicies.samplers import Gaussian
        >>> model = IQL(env="Pendulum-v1")
        >>> model.policy.sampler = Gaussian(temperature=0.0)
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    actor: str = "actor"
    """Name of the Gaussian network, observations -> mean and log-std."""
    temperature: float = 1.0
    """Factor T of the standard deviation; 0 acts with the mean."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        return _normal(nets[self.actor], observations, noise, self.temperature).clamp(-1, 1)


@final
@dataclass(frozen=True)
class TanhGaussian:
    """tanh(mu(s) + T sigma(s) eps), eps ~ N(0, I): the policy of SAC.

    Examples:
        >>> from flowpolicies import SAC
        >>> from flowpolicies.samplers import TanhGaussian
        >>> model = SAC(env="Pendulum-v1")
        >>> model.policy.sampler = TanhGaussian(temperature=0.0)
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    actor: str = "actor"
    """Name of the Gaussian network, observations -> mean and log-std before the tanh."""
    temperature: float = 1.0
    """Factor T of the standard deviation; 0 acts with tanh of the mean."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        return _normal(nets[self.actor], observations, noise, self.temperature).tanh()


@final
@dataclass(frozen=True)
class Perturbed:
    """clip(mu(s) + clip(sigma eps, -c, c)), eps ~ N(0, I): the smoothed target policy of TD3.

    Examples:
        >>> from flowpolicies import ReBRAC
        >>> from flowpolicies.samplers import Perturbed
        >>> model = ReBRAC(env="Pendulum-v1")
        >>> model.policy.sampler = Perturbed()
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    actor: str = "actor"
    """Name of the Gaussian network, observations -> mean and log-std, of which only the mean is used."""
    std: float = 0.2
    """Standard deviation sigma of the perturbation."""
    clip: float = 0.5
    """Largest perturbation c of each coordinate of the action."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        mean, _ = nets[self.actor](observations)
        perturbed: Tensor = mean + (self.std * noise.actions(observations.shape[:-1])).clamp(-self.clip, self.clip)
        return perturbed.clamp(-1, 1)
