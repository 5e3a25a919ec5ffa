"""The solver as a sampler: with the exact energy of a linear Q it lands on the tilted Gaussian."""

from __future__ import annotations

import pytest
import torch
from stubs import view
from torch import Tensor

from flowpolicies.core import GeneratorNoise, ReplayedNoise
from flowpolicies.flows import noise_level
from flowpolicies.policies.serialization import sampler_from_json, sampler_to_json
from flowpolicies.samplers import DPMSolver, EnergyGuided

MEAN, SPREAD, SLOPE = 0.1, 0.15, 8.0
"""Behaviour N(MEAN, SPREAD^2), and log of the tilt SLOPE * a."""


def predict(s: Tensor, x: Tensor, t: Tensor) -> Tensor:
    alpha, sigma, _ = noise_level(t)
    return sigma * (x - alpha * MEAN) / (alpha.square() * SPREAD**2 + sigma.square())


def energy(s: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """log E[exp(SLOPE a) | x_t], up to a constant: the posterior mean of a is linear in x_t."""
    alpha, sigma, _ = noise_level(t)
    return (SLOPE * alpha * SPREAD**2 / (alpha.square() * SPREAD**2 + sigma.square()) * x).squeeze(-1)


NETS = view(actor_diffusion=predict, inner_value=energy)
Z = torch.tensor([[-1.5], [0.0], [0.7]])


def sample(sampler: DPMSolver | EnergyGuided) -> Tensor:
    return sampler(NETS, torch.zeros(3, 1), ReplayedNoise(1, [Z]))


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_guidance_moves_the_gaussian_by_the_exact_tilt(strength: float) -> None:
    found = sample(EnergyGuided(guidance_scale=strength, steps=400))
    expected = MEAN + strength * SLOPE * SPREAD**2 + SPREAD * Z
    torch.testing.assert_close(found, expected, atol=3e-3, rtol=0)


def test_without_strength_it_is_the_plain_solver() -> None:
    torch.testing.assert_close(sample(EnergyGuided(guidance_scale=0.0)), sample(DPMSolver()), atol=0, rtol=0)
    torch.testing.assert_close(sample(DPMSolver(steps=400)), MEAN + SPREAD * Z, atol=3e-3, rtol=0)


def test_actions_are_clipped_at_the_end_only() -> None:
    far = view(actor_diffusion=lambda s, x, t: predict(s, x - 3 * noise_level(t).alpha, t))
    assert (DPMSolver()(far, torch.zeros(3, 1), ReplayedNoise(1, [Z])) == 1.0).all()


def test_works_without_gradients_and_over_several_axes() -> None:
    noise = GeneratorNoise(1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert EnergyGuided()(NETS, torch.zeros(4, 5, 2), noise).shape == (4, 5, 1)


def test_can_be_saved() -> None:
    for sampler in (DPMSolver(steps=4), EnergyGuided(guidance_scale=2.5)):
        assert sampler_from_json(sampler_to_json(sampler)) == sampler
