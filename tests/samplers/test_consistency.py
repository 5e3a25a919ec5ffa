"""The sampler of consistency models."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from stubs import view

from flowpolicies.core import RecordingNoise, ReplayedNoise, ZeroNoise
from flowpolicies.samplers import Consistency


def f(x: np.ndarray, t: float, s: np.ndarray) -> np.ndarray:
    """The consistency function of F(s, x, t) = sin(x) s + t / 100, written out."""
    network = np.sin(x) * s + t / 100
    return 0.25 / ((t - 0.002) ** 2 + 0.25) * x + 0.5 * (t - 0.002) / math.sqrt(t**2 + 0.25) * network


NETS = view(actor_onestep=lambda s, x, t: x.sin() * s + t / 100)
LEVELS = {1: [80.0], 2: [80.0, 2.0], 5: [80.0, 60.5, 41.0, 21.5, 2.0]}


@pytest.mark.parametrize("steps", LEVELS)
def test_every_step_written_out(steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    s, *draws = torch.randn(steps + 1, 6, 2, generator=generator, dtype=torch.float64).unbind()
    s = 0.3 * s
    x = 80 * draws[0].numpy()
    for i, t in enumerate(LEVELS[steps]):
        if i > 0:
            x = x + math.sqrt(t**2 - 0.002**2) * draws[i].numpy()
        x = f(x, t, s.numpy())
    found = Consistency(steps=steps)(NETS, s, ReplayedNoise(2, draws))
    np.testing.assert_allclose(found.numpy(), x.clip(-1, 1), rtol=1e-10)
    assert np.abs(x).max() < 1  # So that the clip hides nothing.


def test_one_draw_per_step_and_clipped_actions() -> None:
    noise = RecordingNoise(ZeroNoise(2))
    actions = Consistency(steps=3)(view(actor_onestep=lambda s, x, t: 9 + 0 * x), torch.zeros(4, 2), noise)
    assert [draw.shape for draw in noise.draws] == [(4, 2)] * 3
    assert torch.equal(actions, torch.ones(4, 2))


def test_gradient_reaches_the_network_through_every_step() -> None:
    weight = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    draws = [torch.full((1, 1), value, dtype=torch.float64) for value in (0.01, -0.2)]
    act = lambda w: Consistency()(
        view(actor_onestep=lambda s, x, t: w * x.sin()), torch.zeros(1, 1, dtype=torch.float64), ReplayedNoise(1, draws)
    )
    (gradient,) = torch.autograd.grad(act(weight).sum(), weight)
    h = 1e-6
    difference = (act(weight.detach() + h) - act(weight.detach() - h)) / (2 * h)
    assert float(gradient) == pytest.approx(float(difference), rel=1e-7)
    only_last = torch.autograd.grad(
        Consistency()(
            view(actor_onestep=lambda s, x, t: torch.where(t > 3, weight.detach(), weight) * x.sin()),
            torch.zeros(1, 1, dtype=torch.float64),
            ReplayedNoise(1, draws),
        ).sum(),
        weight,
    )[0]
    assert float(gradient) != pytest.approx(float(only_last), rel=1e-3)
