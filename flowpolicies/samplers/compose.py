"""Samplers made of samplers."""

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
    """Of N candidates, the one with the largest Q."""

    inner: Sampler = dataclasses.field(default_factory=Integrate)
    """Where the candidates come from."""
    n: int = 32
    """Number of candidates."""
    critic: str = "critic"
    """Who ranks them."""
    score: Literal["mean", "min"] = "mean"
    """How the ensemble's members become one number."""
    at: float | None = None
    """Flow time at which a timed critic is asked; None: the critic takes no time."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        actions, q = _candidates(self, nets, observations, noise)
        return _take(actions, q.argmax(-1))


@final
@dataclass(frozen=True)
class SoftmaxOfN:
    """Of N candidates, one drawn with probability softmax(Q / T)."""

    inner: Sampler = dataclasses.field(default_factory=Integrate)
    """Where the candidates come from."""
    n: int = 50
    """Number of candidates."""
    critic: str = "critic"
    """Who weighs them."""
    score: Literal["mean", "min"] = "min"
    """How the ensemble's members become one number."""
    at: float | None = None
    """Flow time at which a timed critic is asked; None: the critic takes no time."""
    temperature: float = 1.0
    """T > 0; towards 0 it becomes `BestOfN`."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        actions, q = _candidates(self, nets, observations, noise)
        u = noise.draw(Draw("uniform", tuple(q.shape)))
        # The logarithms of 0 and of 1 have no use here; the bounds are the float neighbours that uniform draws reach.
        gumbel = -(-u.clamp(2.0**-32, 1 - 2.0**-24).log()).log()
        return _take(actions, (q / self.temperature + gumbel).argmax(-1))


@final
@dataclass(frozen=True)
class WithNoise:
    """clip(a + sigma eps), eps ~ N(0, I), a from another sampler."""

    inner: Sampler = dataclasses.field(default_factory=Integrate)
    """Where actions come from."""
    std: float = 0.1
    """sigma."""

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


def repeat(observations: Tensor, n: int) -> Tensor:
    """Each observation n times, `[*, O]` -> `[*, n, O]`: what a sampler needs to give n actions for each."""
    return observations.unsqueeze(-2).expand(*observations.shape[:-1], n, observations.shape[-1])


def _take(actions: Tensor, chosen: Tensor) -> Tensor:
    """The actions number `chosen` `[*]` of `[*, N, A]`."""
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
