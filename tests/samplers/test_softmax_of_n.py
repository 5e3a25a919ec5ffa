"""Candidates drawn by their values."""

from __future__ import annotations

import math

import pytest
import torch
from stubs import view

from flowpolicies.core import GeneratorNoise, ReplayedNoise, ZeroNoise
from flowpolicies.samplers import BestOfN, OneStep, SoftmaxOfN

N, ROWS = 4, 20_000
CANDIDATES = torch.tensor([-0.5, 0.0, 0.25, 0.75])
NETS = view(
    actor_onestep=lambda s, x: CANDIDATES[:, None].expand(*x.shape),
    critic=lambda s, a: torch.stack([2 * a[..., 0], 2 * a[..., 0] + 1 - 4 * (a[..., 0] > 0.5)]),
)
"""Of the candidates, the fourth has the largest first value, and -1.5 as the smaller of its two."""


def shares(sampler: SoftmaxOfN, seed: int = 0) -> torch.Tensor:
    noise = GeneratorNoise(1, torch.Generator().manual_seed(seed))
    actions = sampler(NETS, torch.zeros(ROWS, 1), noise)
    return (actions == CANDIDATES).float().mean(0)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_frequencies_are_the_softmax_of_the_scores(temperature: float) -> None:
    lowest = torch.tensor([-1.0, 0.0, 0.5, -1.5])
    found = shares(SoftmaxOfN(OneStep(), N, temperature=temperature))
    expected = (lowest / temperature).softmax(-1)
    worst = 4 * math.sqrt(0.25 / ROWS)
    torch.testing.assert_close(found, expected, atol=worst, rtol=0)
    mean = torch.tensor([-0.5, 0.5, 1.0, 0.0])
    found = shares(SoftmaxOfN(OneStep(), N, score="mean", temperature=temperature))
    torch.testing.assert_close(found, (mean / temperature).softmax(-1), atol=worst, rtol=0)


def test_a_low_temperature_and_no_noise_give_the_best() -> None:
    best = BestOfN(OneStep(), N, score="min")(NETS, torch.zeros(5, 1), ZeroNoise(1))
    assert torch.equal(best, torch.full((5, 1), 0.25))
    assert torch.equal(SoftmaxOfN(OneStep(), N)(NETS, torch.zeros(5, 1), ZeroNoise(1)), best)
    cold = SoftmaxOfN(OneStep(), N, temperature=1e-3)
    assert shares(cold).tolist() == [0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("u", [0.0, 1.0, 1 - 2**-24])
def test_the_ends_of_a_uniform_draw_do_no_harm(u: float) -> None:
    draws = [torch.zeros(1, N, 1), torch.full((1, N), u)]
    assert float(SoftmaxOfN(OneStep(), N)(NETS, torch.zeros(1, 1), ReplayedNoise(1, draws))) == 0.25
    one_low = torch.tensor([[0.5, 0.5, u, 0.5]])
    chosen = SoftmaxOfN(OneStep(), N)(NETS, torch.zeros(1, 1), ReplayedNoise(1, [draws[0], one_low]))
    assert float(chosen) == (0.0 if u == 0.0 else 0.25)


def test_shapes_and_a_missing_critic() -> None:
    noise = GeneratorNoise(1, torch.Generator().manual_seed(0))
    assert SoftmaxOfN(OneStep(), N)(NETS, torch.zeros(2, 3, 1), noise).shape == (2, 3, 1)
    with pytest.raises(KeyError, match="SoftmaxOfN ranks candidates with the network 'value'"):
        SoftmaxOfN(OneStep(), N, critic="value")(NETS, torch.zeros(2, 1), noise)
