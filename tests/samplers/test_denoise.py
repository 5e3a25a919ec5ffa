"""The sampler of a diffusion's reverse chain, by hand on linear predictions."""

from __future__ import annotations

import math

import pytest
import torch
from batches import column
from stubs import view

from flowpolicies.core import ReplayedNoise
from flowpolicies.flows import betas
from flowpolicies.samplers import Denoise

PREDICTED = lambda s, x, t: 0.4 * x - 0.1 * t + 0.2 * s


def chain(x: float, s: float, zs: list[float], temperature: float) -> float:
    """Three steps of the rule "jump" with a linear schedule, of which the last adds no noise, each clipped."""
    beta = betas("linear", 3)
    for t, z in zip((3, 2, 1), zs, strict=True):
        abar = math.prod(1 - b for b in beta[:t])
        eps = 0.4 * x - 0.1 * t + 0.2 * s
        x = (x - math.sqrt(1 - abar) * eps) / math.sqrt(abar) + (t > 1) * temperature * math.sqrt(beta[t - 1]) * z
        x = min(max(x, -1.0), 1.0)
    return x


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_chain_in_the_configured_steps_schedule_and_temperature(temperature: float) -> None:
    x, states, zs = (0.5, -0.4), (0.3, -0.2), ([0.9, -1.5, 9.0], [-0.2, 0.4, 9.0])
    noise = ReplayedNoise(1, [column(*x), *(column(*pair) for pair in zip(*zs, strict=True))])
    sampler = Denoise(steps=3, schedule="linear", rule="jump", temperature=temperature)
    actions = sampler(view(actor_diffusion=PREDICTED), column(*states), noise)
    expected = [chain(*row, temperature) for row in zip(x, states, zs, strict=True)]
    assert actions[:, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert all(abs(action) < 1 for action in expected)


def test_actions_are_clipped() -> None:
    """The rule "ancestral" clips the estimate of the action, to which the last of its steps moves nearly."""
    far = view(actor_diffusion=lambda s, x, t: -30 * s + 0 * x)
    noise = ReplayedNoise(1, [torch.zeros(2, 1)] + [torch.full((2, 1), 3.0)] * 2)
    actions = Denoise(steps=2)(far, torch.tensor([[1.0], [-1.0]]), noise)
    assert actions[:, 0].tolist() == [1.0, -1.0]
