"""Noise regression with the gradient of Q, shared by DAC and QSM."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.types import Batch
from flowpolicies.core.views import BoundNetwork, Networks
from flowpolicies.flows import Diffusion, Noised, action_gradient


class Scored(NamedTuple):
    """Actions of the data at random noise levels, with the policy's prediction and a critic's gradient at each."""

    noised: Noised
    """The noisy actions x_t, and the noise eps in them."""
    eps_hat: Tensor
    """The policy's prediction of eps, with gradient, `[B, A]`."""
    q_gradient: Tensor
    """Gradient G = grad_x mean_e Q_e(s, x) at the unclipped x_t, constant, `[B, A]`."""


def scored(nets: Networks, critic: BoundNetwork, batch: Batch, noise: Noise, diffusion: Diffusion) -> Scored:
    """Noisy actions with the policy's prediction and the critic's gradient. Makes the same draws as `denoising`.

    Args:
        critic: (observations, actions) -> `[E, B]`, without gradient to its weights.
    """
    noised = diffusion.noised(batch.actions, noise)
    eps_hat = nets.online.actor_diffusion(batch.observations, noised.x, noised.t)
    return Scored(noised, eps_hat, action_gradient(critic.given(batch.observations), noised.x))


def noise_error(at: Scored, batch: Batch) -> Tensor:
    """mean_b valid_b mean_i (eps_hat - eps)_i^2: the loss of `denoising` at these points."""
    return _mean(batch, (at.eps_hat - at.noised.eps).square())


def soft_guidance(at: Scored, batch: Batch) -> Tensor:
    """mean_b valid_b mean_i sqrt(1 - abar_t) G_i eps_hat_i: moves eps_hat along -G, and so the action along G."""
    return _mean(batch, (1 - at.noised.abar).sqrt() * at.q_gradient * at.eps_hat)


def q_score_error(at: Scored, batch: Batch, inv_temp: float) -> Tensor:
    """mean_b valid_b mean_i (eps_hat + kappa G)_i^2, kappa the inverse temperature: regresses the noise onto -kappa
    G."""
    return _mean(batch, (at.eps_hat + inv_temp * at.q_gradient).square())


def _mean(batch: Batch, terms: Tensor) -> Tensor:
    return (batch.valid * terms.mean(-1)).mean()
