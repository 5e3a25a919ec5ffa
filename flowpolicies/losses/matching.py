"""Flow matching: regression of a velocity field."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.terms import loss_term
from flowpolicies.core.types import Batch, Loss
from flowpolicies.core.views import Config, Networks
from flowpolicies.flows import interpolate


def flow_matching(field: Callable[..., Tensor], batch: Batch, noise: Noise) -> Tensor:
    """mean_b valid_b mean_i (v(s, x_t, t) - (x_1 - x_0))_i^2, a scalar; the behaviour-cloning loss of flows.

    Args:
        field: (observations, x_t, t) -> velocity, on the online view of what is trained.
    """
    x_t, t, velocity = interpolate(batch.actions, noise)
    error = (field(batch.observations, x_t, t) - velocity).square().mean(-1)
    return (batch.valid * error).mean()


@loss_term(trains="actor_flow")
def flow_matching_loss(nets: Networks, batch: Batch, noise: Noise, cfg: Config) -> Loss:
    """Behaviour cloning of `actor_flow`."""
    return flow_matching(nets.online.actor_flow, batch, noise), {}
