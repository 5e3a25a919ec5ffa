"""Samplers made of samplers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from flowpolicies.core.noise import Noise
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
        if self.critic not in nets:
            raise KeyError(
                f"BestOfN ranks candidates with the network {self.critic!r}, but the policy has: {', '.join(nets)}. "
                "Name another one with critic=, or use the inner sampler alone."
            )
        candidates = observations.unsqueeze(-2).expand(*observations.shape[:-1], self.n, observations.shape[-1])
        actions = self.inner(nets, candidates, noise)
        times = [] if self.at is None else [torch.full_like(actions[..., :1], self.at)]
        q = nets[self.critic](candidates, actions, *times)
        best = (q.mean(0) if self.score == "mean" else q.amin(0)).argmax(-1)
        index = best[..., None, None].expand(*actions.shape[:-2], 1, actions.shape[-1])
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
