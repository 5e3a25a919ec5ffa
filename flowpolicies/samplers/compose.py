"""Samplers that contain other samplers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from flowpolicies.core.noise import Draw, Noise
from flowpolicies.core.views import View
from flowpolicies.samplers.base import Sampler
from flowpolicies.samplers.flow import Integrate


@final
@dataclass(frozen=True)
class BestOfN:
    """The best of N candidates, by a critic.

    Examples:
        >>> from flowpolicies import QFlow
        >>> from flowpolicies.samplers import BestOfN, Integrate
        >>> model = QFlow(env="Pendulum-v1")
        >>> model.policy.sampler = BestOfN(Integrate(steps=5), n=8)
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    inner: Sampler = dataclasses.field(default_factory=Integrate)
    """Sampler of the candidate actions."""
    n: int = 32
    """Number N of candidates."""
    critic: str = "critic"
    """Name of the critic that ranks the candidates."""
    score: Literal["mean", "min"] = "mean"
    """How the ensemble's values become one: their mean or their minimum."""
    at: float | None = None
    """Flow time that a timed critic is called with; None: the critic takes no time."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        actions, q = _candidates(self, nets, observations, noise)
        return _take(actions, q.argmax(-1))


@final
@dataclass(frozen=True)
class SoftmaxOfN:
    """One of N candidates, drawn with probability softmax(Q / T).

    Examples:
        >>> from flowpolicies import QFlow
        >>> from flowpolicies.samplers import Integrate, SoftmaxOfN
        >>> model = QFlow(env="Pendulum-v1")
        >>> model.policy.sampler = SoftmaxOfN(Integrate(), n=8, temperature=0.5)
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    inner: Sampler = dataclasses.field(default_factory=Integrate)
    """Sampler of the candidate actions."""
    n: int = 50
    """Number N of candidates."""
    critic: str = "critic"
    """Name of the critic that weighs the candidates."""
    score: Literal["mean", "min"] = "min"
    """How the ensemble's values become one: their mean or their minimum."""
    at: float | None = None
    """Flow time that a timed critic is called with; None: the critic takes no time."""
    temperature: float = 1.0
    """Temperature T of the softmax, greater than 0; towards 0 the sampler becomes `BestOfN`."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        actions, q = _candidates(self, nets, observations, noise)
        u = noise.draw(Draw("uniform", tuple(q.shape)))
        # Avoids infinite logarithms: the bounds are below and above every other value of a uniform float draw.
        gumbel = -(-u.clamp(2.0**-32, 1 - 2.0**-24).log()).log()
        return _take(actions, (q / self.temperature + gumbel).argmax(-1))


@final
@dataclass(frozen=True)
class WithNoise:
    """clip(a + sigma eps), eps ~ N(0, I), a from another sampler.

    Examples:
        >>> from flowpolicies import FlowPolicy
        >>> from flowpolicies.samplers import Integrate, WithNoise
        >>> policy = FlowPolicy.from_pretrained("flowpolicies/pointmaze-medium-qflow")
        >>> policy.sampler = WithNoise(Integrate(), std=0.1)
        >>> policy.predict(policy.observation_space.sample())[0].shape
        (2,)
    """

    inner: Sampler = dataclasses.field(default_factory=Integrate)
    """Sampler of the actions that noise is added to."""
    std: float = 0.1
    """Standard deviation sigma of the added noise."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        actions = self.inner(nets, observations, noise)
        return (actions + self.std * noise.actions(observations.shape[:-1])).clamp(-1, 1)


def _candidates(sampler: BestOfN | SoftmaxOfN, nets: View, observations: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """N actions per observation `[*, N, A]`, and their scores `[*, N]`."""
    if sampler.critic not in nets:
        raise KeyError(
            f"{type(sampler).__name__} ranks candidates with the network {sampler.critic!r}, but the policy has: "
            f"{', '.join(nets)}. Name another one with critic=, or use the inner sampler alone."
        )
    repeated = repeat(observations, sampler.n)
    actions = sampler.inner(nets, repeated, noise)
    times = [] if sampler.at is None else [torch.full_like(actions[..., :1], sampler.at)]
    q = nets[sampler.critic](repeated, actions, *times)
    return actions, q.mean(0) if sampler.score == "mean" else q.amin(0)


def candidates(sampler: Sampler) -> int:
    """Number of actions that a sampler makes for each observation, of which it returns one."""
    own = sampler.n if isinstance(sampler, BestOfN | SoftmaxOfN) else 1
    inner: Sampler | None = getattr(sampler, "inner", None)
    return own if inner is None else own * candidates(inner)


def repeat(observations: Tensor, n: int) -> Tensor:
    """Each observation n times, `[*, O]` -> `[*, n, O]`, so that a sampler gives n actions for each."""
    return observations.unsqueeze(-2).expand(*observations.shape[:-1], n, observations.shape[-1])


def _take(actions: Tensor, chosen: Tensor) -> Tensor:
    """The action with index `chosen` `[*]` in `[*, N, A]`."""
    index = chosen[..., None, None].expand(*actions.shape[:-2], 1, actions.shape[-1])
    return actions.gather(-2, index).squeeze(-2)


def best_of(
    sampler: Sampler,
    n: int,
    critic: str = "critic",
    score: Literal["mean", "min"] = "mean",
    at: float | None = None,
) -> Sampler:
    """`BestOfN`, or the sampler itself for n = 1."""
    return sampler if n == 1 else BestOfN(sampler, n, critic, score, at)
