"""DSRL's sampler: a squashed Gaussian chooses where the flow starts."""

import dataclasses
from functools import partial

import pytest
import torch
from stubs import view

from flowpolicies.core import GeneratorNoise, RecordingNoise, ReplayedNoise, View, ZeroNoise
from flowpolicies.networks import TanhNormal, VelocityField
from flowpolicies.samplers import Integrate, Latent


def networks() -> View:
    torch.manual_seed(0)
    modules = {
        "latent_actor": TanhNormal(3, 2, hidden_dims=(16,)),
        "actor_flow": VelocityField(3, 2, hidden_dims=(16,)),
    }
    for module in modules.values():
        module.requires_grad_(False)
    return View.of(modules)


LINEAR = view(latent_actor=lambda s, eps: (eps.tanh(), eps.sum(-1)), actor_flow=lambda s, x, t: -x)


def test_closed_form_of_a_linear_flow() -> None:
    eps = torch.tensor([[0.3, -2.0]])
    actions = Latent(steps=4, noise_scale=0.5)(LINEAR, torch.zeros(1, 3), ReplayedNoise(2, [eps]))
    torch.testing.assert_close(actions, 0.5 * eps.tanh() * 0.75**4)


def test_large_noise_is_clipped_only_at_the_end() -> None:
    far = Latent(steps=2, noise_scale=8.0)(LINEAR, torch.zeros(1, 3), ReplayedNoise(2, [torch.tensor([[9.0, 0.05]])]))
    torch.testing.assert_close(far, torch.tensor([[1.0, 8 * 0.25 * torch.tensor(0.05).tanh()]]))


def test_it_is_the_flow_from_the_chosen_noise_and_draws_once() -> None:
    nets, observations, eps = networks(), torch.randn(5, 3), torch.randn(5, 2)
    z, _ = nets.latent_actor(observations, eps)
    expected = Integrate(steps=7)(nets, observations, ReplayedNoise(2, [1.4 * z]))
    noise = RecordingNoise(ReplayedNoise(2, [eps]))
    torch.testing.assert_close(Latent(steps=7, noise_scale=1.4)(nets, observations, noise), expected)
    assert [(draw.kind, draw.shape) for draw in noise.draws] == [("normal", (5, 2))]


def test_shapes_and_repeatability() -> None:
    nets, observations = networks(), torch.randn(2, 3, 3)
    noise = partial(GeneratorNoise, 2)
    actions = Latent()(nets, observations, noise(torch.Generator().manual_seed(0)))
    assert actions.shape == (2, 3, 2)
    assert torch.equal(actions, Latent()(nets, observations, noise(torch.Generator().manual_seed(0))))
    assert torch.equal(Latent()(nets, observations, ZeroNoise(2)), Latent()(nets, observations, ZeroNoise(2)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Latent().steps = 3
