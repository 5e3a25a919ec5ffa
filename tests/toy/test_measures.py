"""Distances between samples and data, and what counts as off the support."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowpolicies.toy.datasets import draw_points
from flowpolicies.toy.measures import HELD_OUT, energy_distance, measure, mmd


def test_energy_distance_of_two_points_is_twice_their_distance() -> None:
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert energy_distance(x, y) == pytest.approx(10)
    assert energy_distance(x, x) == 0


def test_energy_distance_agrees_with_scipy_on_a_line() -> None:
    from scipy.stats import energy_distance as on_a_line

    x, y = np.random.default_rng(0).normal(loc=[[0], [1]], size=(2, 50))
    ours = energy_distance(torch.tensor(x)[:, None], torch.tensor(y)[:, None])
    assert ours == pytest.approx(on_a_line(x, y) ** 2)  # SciPy returns the root.


def test_mmd_is_0_for_equal_samples_and_near_root_2_for_distant_ones() -> None:
    x = torch.zeros(5, 2)
    assert mmd(x, x) == 0
    assert mmd(x, x + 100) == pytest.approx(2**0.5)


def test_fresh_data_lie_on_the_support() -> None:
    found = measure(draw_points("moons", HELD_OUT, seed=2).positions, "moons")
    assert found.off_support == pytest.approx(0.01, abs=0.01)
    assert found.covered > 0.9
    assert found.reward == pytest.approx(0.5, abs=0.01)
    assert found.energy < 0.01
    assert found.mmd < 0.05


def test_samples_beside_the_data_are_off_the_support_and_those_of_one_mode_cover_little() -> None:
    beside = measure(np.full((100, 2), 3.9, np.float32), "moons")
    assert beside.off_support == 1
    assert beside.covered == 0
    data = draw_points("eight_gaussians", HELD_OUT, seed=2)
    best = measure(data.positions[data.rewards == 1], "eight_gaussians")
    assert best.reward > 0.98
    assert best.off_support < 0.05
    assert best.covered < 0.2
    assert best.energy > 0.5
