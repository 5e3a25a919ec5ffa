"""Gaussian samplers against their formulas."""

import pytest
import torch
from stubs import view

from flowpolicies.core import GeneratorNoise, RecordingNoise, ReplayedNoise, View, ZeroNoise
from flowpolicies.networks import GaussianNetwork
from flowpolicies.policies.serialization import sampler_from_json, sampler_to_json
from flowpolicies.samplers import BestOfN, Gaussian, Perturbed, Sampler, TanhGaussian

OBSERVATIONS = torch.zeros(1, 3)
EPS = torch.tensor([[1.0, -4.0]])
NETS = view(actor=lambda s: (torch.tensor([[0.25, 0.5]]), torch.tensor([[0.5, 2.0]]).log()))


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (Gaussian(), [0.75, -1.0]),
        (Gaussian(temperature=0.1), [0.3, -0.3]),
        (Gaussian(temperature=0.0), [0.25, 0.5]),
        (Perturbed(std=0.1, clip=0.3), [0.35, 0.2]),
        (Perturbed(std=0.0), [0.25, 0.5]),
        (Perturbed(std=1.0, clip=1.0), [1.0, -0.5]),
    ],
)
def test_numbers(sampler: Sampler, expected: list[float]) -> None:
    torch.testing.assert_close(sampler(NETS, OBSERVATIONS, ReplayedNoise(2, [EPS])), torch.tensor([expected]))


def test_squashed_numbers() -> None:
    inside = TanhGaussian(temperature=0.1)(NETS, OBSERVATIONS, ReplayedNoise(2, [EPS]))
    torch.testing.assert_close(inside, torch.tensor([[0.3, -0.3]]).tanh())
    mean = TanhGaussian(temperature=0.0)(NETS, OBSERVATIONS, ReplayedNoise(2, [EPS]))
    torch.testing.assert_close(mean, torch.tensor([[0.25, 0.5]]).tanh())


@pytest.mark.parametrize(
    "sampler", [Gaussian(), Gaussian("edit_actor", 0.5), TanhGaussian(), Perturbed(clip=0.1), BestOfN(Gaussian(), 4)]
)
def test_shapes_bounds_draws_and_file(sampler: Sampler) -> None:
    torch.manual_seed(0)
    head = GaussianNetwork(3, 2, hidden_dims=(8,), state_dependent_std=True, head_scale=100.0).requires_grad_(False)
    nets = View.of({"actor": head, "edit_actor": head}) | view(critic=lambda s, a: a.sum(-1).unsqueeze(0))
    observations = torch.randn(5, 4, 3)
    draw = lambda: GeneratorNoise(2, torch.Generator().manual_seed(0))
    noise = RecordingNoise(draw())
    actions = sampler(nets, observations, noise)
    assert actions.shape == (5, 4, 2)
    assert actions.abs().max() <= 1
    assert [entry.kind for entry in noise.draws] == ["normal"]
    assert torch.equal(actions, sampler(nets, observations, draw()))
    assert not torch.equal(actions, sampler(nets, observations, ZeroNoise(2)))
    assert sampler_from_json(sampler_to_json(sampler)) == sampler
