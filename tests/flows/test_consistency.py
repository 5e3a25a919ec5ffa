"""Consistency models: values worked out from arXiv 2303.01469, and the boundary condition."""

from __future__ import annotations

import math

import pytest
import torch

from flowpolicies.core import GeneratorNoise, ReplayedNoise
from flowpolicies.flows import boundaries, consistency_function, curriculum, random_neighbors
from flowpolicies.networks import NoisePrediction

BOUNDARIES = {
    2: [0.002, 80.0],
    3: [0.002, 2.515219, 80.0],
    5: [0.002, 0.169753, 2.515219, 17.527832, 80.0],
}


@pytest.mark.parametrize("count", BOUNDARIES)
def test_boundaries_have_the_golden_values(count: int) -> None:
    found = boundaries(torch.arange(count, dtype=torch.float64), count)
    assert found.tolist() == pytest.approx(BOUNDARIES[count], abs=5.1e-7)
    assert boundaries(torch.arange(count), torch.tensor(count)).tolist() == pytest.approx(BOUNDARIES[count], rel=1e-5)


def test_the_least_noisy_point_is_its_own_action_whatever_the_network_says() -> None:
    torch.manual_seed(0)
    network = NoisePrediction(3, 2, hidden_dims=(16, 16))
    observations, x = torch.randn(64, 3), 3 * torch.randn(64, 2)
    field = lambda x, sigma: 100 * network(observations, x, sigma)
    assert torch.equal(consistency_function(field, x, torch.full((64, 1), 0.002)), x)
    assert not torch.allclose(consistency_function(field, x, torch.full((64, 1), 0.01)), x, atol=0.1)


def test_the_form_in_double_precision() -> None:
    x, sigma = torch.tensor([[0.3], [-2.0]], dtype=torch.float64), torch.tensor([[2.0], [80.0]], dtype=torch.float64)
    found = consistency_function(lambda x, sigma: x.cos() + sigma, x, sigma)
    for row, (a, t) in enumerate([(0.3, 2.0), (-2.0, 80.0)]):
        c_skip = 0.25 / ((t - 0.002) ** 2 + 0.25)
        c_out = 0.5 * (t - 0.002) / math.sqrt(t**2 + 0.25)
        assert float(found[row]) == pytest.approx(c_skip * a + c_out * (math.cos(a) + t), rel=1e-12)


def test_the_curriculum_has_the_golden_values_and_starts_again() -> None:
    for i, levels in ((0, 2), (1, 3), (1000, 22), (25_000, 107), (49_999, 150), (50_000, 2), (51_000, 22)):
        assert int(curriculum(torch.tensor(float(i)), 50_000)) == levels


def test_the_curriculum_in_every_update() -> None:
    n = 50_000
    found = curriculum(torch.arange(n, dtype=torch.float32), n).tolist()
    assert found == [math.ceil(math.sqrt(i * (150**2 - 2**2) / n + 4) - 1) + 1 for i in range(n)]


def test_neighbours_are_neighbours_and_uniform() -> None:
    noise, count = GeneratorNoise(1, torch.Generator().manual_seed(0)), torch.tensor(5)
    less, more = random_neighbors(noise, torch.Size((8000,)), count)
    assert less.shape == more.shape == (8000, 1)
    levels = torch.tensor(BOUNDARIES[5])
    n = (less - levels).abs().argmin(-1)
    torch.testing.assert_close(less.squeeze(-1), levels[n], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(more.squeeze(-1), levels[n + 1], rtol=1e-4, atol=1e-6)
    shares = torch.bincount(n, minlength=5) / 8000
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.25, 0.25, 0.25, 0.0]), atol=0.02, rtol=0)


@pytest.mark.parametrize("u", [1 - 2**-24, 1.0])
def test_the_largest_uniform_draw_stays_below_the_last_level(u: float) -> None:
    """Draws of other programs are rounded to single precision, and so may be 1."""
    largest = ReplayedNoise(1, [torch.tensor([[u]])])
    _, more = random_neighbors(largest, torch.Size((1,)), torch.tensor(150))
    assert float(more) == pytest.approx(80.0, rel=1e-5)
