"""Modules with other weights, and the mode of modules."""

import pytest
import torch
from torch import nn

from flowpolicies.core import View, ZeroNoise
from flowpolicies.core.views import set_mode, with_weights
from flowpolicies.networks import VelocityField
from flowpolicies.samplers import Integrate


class Stubborn(nn.Module):
    """Keeps its batch normalisation in evaluation mode, as frozen encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.nothing = nn.BatchNorm1d(2), nn.Dropout(), None
        self.register_module("empty", None)

    def train(self, mode: bool = True) -> "Stubborn":
        super().train(mode)
        self.norm.eval()
        return self


def make() -> nn.Module:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.Dropout()))
    return nn.ModuleDict({"own": Stubborn(), "plain": nn.Sequential(nn.Linear(2, 2), nn.Dropout()), "script": scripted})


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_that_of_train(training: bool) -> None:
    one, other = make(), make()
    for module in (one, other):
        module.train(not training)
    one.train(training)
    set_mode(other, training)
    assert other.training == training
    assert [part.training for part in other.modules()] == [part.training for part in one.modules()]


def test_a_module_with_other_weights_leaves_its_original_alone() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2)))
    module.eval()
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    weights = {name: torch.randn_like(weight) for name, weight in before.items()}
    clone, x = with_weights(module, weights), torch.randn(5, 3)
    assert torch.equal(clone(x), torch.func.functional_call(module, weights, (x,)))
    assert torch.equal(module(x), torch.func.functional_call(module, before, (x,)))
    assert type(clone) is type(module)
    assert not clone.training
    assert clone[0].weight is weights["0.weight"]
    assert module[0].weight is not weights["0.weight"]


@pytest.mark.parametrize("part", ["", "net.layers.0"])
def test_hooks_are_called_in_every_step_of_a_flow(part: str) -> None:
    field = VelocityField(3, 2, hidden_dims=(4,))
    view, calls = View.of({"actor_flow": field}), []
    observations, noise = torch.zeros(5, 3), ZeroNoise(2)
    without = Integrate(steps=4)(view, observations, noise)
    field.get_submodule(part).register_forward_hook(lambda module, inputs, output: calls.append(output))
    assert torch.equal(Integrate(steps=4)(view, observations, noise), without)
    assert len(calls) == 4
