"""Sums of flows, and edited actions."""

import pytest
import torch

from flowpolicies.core import GeneratorNoise, ReplayedNoise, View, ZeroNoise
from flowpolicies.networks import Critic, TanhNormal, VelocityField
from flowpolicies.policies.serialization import sampler_from_json, sampler_to_json
from flowpolicies.samplers import BestOfN, Edit, Integrate, IntegrateResidual

OBSERVATIONS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def nets() -> View:
    torch.manual_seed(0)
    modules = {
        "critic": Critic(3, 2, hidden_dims=(8,)),
        "actor_flow": VelocityField(3, 2, hidden_dims=(8,)),
        "actor_slow": VelocityField(3, 2, hidden_dims=(8,)),
        "edit_actor": TanhNormal(3, 2, hidden_dims=(8,), takes_action=True),
    }
    return View.of({name: module.requires_grad_(False) for name, module in modules.items()})


def noise() -> GeneratorNoise:
    return GeneratorNoise(2, torch.Generator().manual_seed(0))


SAMPLERS = [Edit(), BestOfN(Edit(Integrate(steps=3), 0.5), 4), IntegrateResidual("actor_slow", "actor_flow")]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_shapes_bounds_repeatability_and_file(nets: View, sampler) -> None:
    actions = sampler(nets, OBSERVATIONS, noise())
    assert actions.shape == (6, 2)
    assert actions.abs().max() <= 1
    assert torch.equal(actions, sampler(nets, OBSERVATIONS, noise()))
    assert torch.equal(sampler(nets, OBSERVATIONS, ZeroNoise(2)), sampler(nets, OBSERVATIONS, ZeroNoise(2)))
    assert sampler(nets, OBSERVATIONS.reshape(2, 3, 3), noise()).shape == (2, 3, 2)
    assert sampler_from_json(sampler_to_json(sampler)) == sampler


def test_edit_is_the_inner_action_plus_a_scaled_edit(nets: View) -> None:
    z, eps = torch.randn(6, 2), torch.randn(6, 2)
    inner = Integrate()(nets, OBSERVATIONS, ReplayedNoise(2, [z]))
    edits, _ = nets.edit_actor(OBSERVATIONS, inner, eps)
    edited = Edit(scale=0.3)(nets, OBSERVATIONS, ReplayedNoise(2, [z, eps]))
    torch.testing.assert_close(edited, (inner + 0.3 * edits).clamp(-1, 1))
    assert torch.equal(Edit(scale=0.0)(nets, OBSERVATIONS, ReplayedNoise(2, [z, eps])), inner)


def test_residual_of_a_field_and_itself_is_twice_the_field(nets: View) -> None:
    x = torch.randn(6, 2)
    once = IntegrateResidual("actor_slow", "actor_slow", steps=1)(nets, OBSERVATIONS, ReplayedNoise(2, [x]))
    velocity = nets.actor_slow(OBSERVATIONS, x, torch.zeros(6, 1))
    torch.testing.assert_close(once, (x + 2 * velocity).clamp(-1, 1))
