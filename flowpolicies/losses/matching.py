"""Flow matching and denoising: regression of a velocity, or of noise."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.terms import loss_term
from flowpolicies.core.types import Batch, Loss
from flowpolicies.core.views import Config, Networks
from flowpolicies.flows import Diffusion, interpolate


def flow_matching(field: Callable[..., Tensor], batch: Batch, noise: Noise, weights: Tensor | float = 1.0) -> Tensor:
    """mean_b valid_b w_b mean_i (v(s, x_t, t) - (x_1 - x_0))_i^2, a scalar; the behaviour-cloning loss of flows.

    Args:
        field: (observations, x_t, t) -> velocity, on the online view of the network that is trained.
        weights: w `[B]`, without gradient.
    """
    x_t, t, velocity = interpolate(batch.actions, noise)
    error = (field(batch.observations, x_t, t) - velocity).square().mean(-1)
    return (batch.valid * weights * error).mean()


def denoising(network: Callable[..., Tensor], batch: Batch, noise: Noise, diffusion: Diffusion) -> Tensor:
    """mean_b valid_b mean_i (eps_hat(s, x, k) - eps)_i^2, a scalar; the behaviour-cloning loss of diffusions.

    Args:
        network: (observations, x, index) -> predicted noise, on the online view of the network that is trained.
    """
    noised = diffusion.noised(batch.actions, noise)
    error = (network(batch.observations, noised.x, noised.t) - noised.eps).square().mean(-1)
    return (batch.valid * error).mean()


@loss_term(trains="actor_flow")
def flow_matching_loss(nets: Networks, batch: Batch, noise: Noise, cfg: Config) -> Loss:
    """|v(s, x_t, t) - (x_1 - x_0)|^2: behaviour cloning of `actor_flow`."""
    return flow_matching(nets.online.actor_flow, batch, noise), {}
