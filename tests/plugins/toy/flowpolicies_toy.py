"""Behaviour cloning that prefers large rewards: an algorithm of another package, with its own network and sampler.

Its paper is https://example.org/toy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import final

from flowpolicies_toy_parts import Mellow, ToyField

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.flows import interpolate
from flowpolicies.samplers import Integrate, Sampler
from flowpolicies.shell.config import PolicyConfig


@final
@dataclass(frozen=True, kw_only=True)
class ToyConfig(PolicyConfig):
    """Hyperparameters of Toy."""

    temperature: float = 1.0
    """Temperature of the softmax over the rewards of a batch; large values ignore the rewards."""
    flow_steps: int = 10
    """Number of Euler steps of the flow."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"actor_flow": Network(partial(ToyField, widths=self.actor_hidden_dims))}

    def sampler(self) -> Sampler:
        return Mellow(Integrate(steps=self.flow_steps))


@loss_term(trains="actor_flow")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: ToyConfig) -> Loss:
    """w |v(s, x_t, t) - (x_1 - x_0)|^2, w = softmax of r / temperature over the batch."""
    x_t, t, velocity = interpolate(batch.actions, noise)
    error = (nets.online.actor_flow(batch.observations, x_t, t) - velocity).square().mean(-1)
    weight = (batch.rewards / cfg.temperature).softmax(0)
    return (batch.valid * weight * error).sum(), {"weight_max": weight.max()}


@final
class Toy(OfflineAlgorithm):
    """Reward-weighted flow matching."""

    Config = ToyConfig
    losses = (actor_loss,)
