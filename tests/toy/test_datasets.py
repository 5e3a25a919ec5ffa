"""The points of the 2D experiments are those of the paper."""

from __future__ import annotations

import numpy as np
import pytest

from flowpolicies.toy.datasets import BOX, DATASETS, as_transitions, draw_points
from flowpolicies.toy.settings import NAMES


def test_the_command_line_names_the_datasets() -> None:
    assert tuple(DATASETS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_points_fill_the_box_with_rewards_between_0_and_about_1(name: str) -> None:
    points = draw_points(name)
    assert points.positions.shape == (10_000, 2)
    assert np.abs(points.positions).max() <= BOX
    assert points.rewards.min() >= 0
    assert 0.85 < points.rewards.max() < 1.6
    again, other = draw_points(name), draw_points(name, seed=1)
    assert (again.positions == points.positions).all()
    assert (other.positions != points.positions).any()


def test_the_reward_of_the_swiss_roll_grows_outwards() -> None:
    points = draw_points("swissroll")
    assert points.rewards == pytest.approx((points.positions**2).sum(1) / 9, rel=1e-5)
    # scikit-learn's angles are 1.5 pi to 4.5 pi, its noise of 1 is divided by 5 with everything else.
    assert np.linalg.norm(points.positions, axis=1).max() == pytest.approx(4.5 * np.pi / 5, abs=1.0)


def test_the_spirals_are_mirrored_and_best_in_the_centre() -> None:
    points = draw_points("two_spirals")
    distance = np.linalg.norm(points.positions, axis=1)
    # A point at angle n lies n / 3 away from the centre, and has the reward 1 - n / 10.
    inside = distance < 2.9
    assert np.abs(points.rewards - (1 - 3 * distance / 10))[inside].max() < 0.1
    assert abs(points.positions.mean(0)).max() < 0.05


def test_the_first_gaussian_is_on_top_and_the_others_follow_counterclockwise() -> None:
    points = draw_points("eight_gaussians")
    for index in range(8):
        center = points.positions[np.isclose(points.rewards, index / 7)].mean(0)
        angle = np.deg2rad(90 + 45 * index)
        expected = 4 / np.sqrt(2) * np.array([np.cos(angle), np.sin(angle)])
        assert center == pytest.approx(expected, abs=0.06)
        spread = points.positions[np.isclose(points.rewards, index / 7)].std(0)
        assert spread == pytest.approx(0.5 / np.sqrt(2), abs=0.03)


def test_the_lower_moon_has_the_reward_1() -> None:
    points = draw_points("moons")
    upper, lower = (points.positions[points.rewards == reward] for reward in (0, 1))
    assert len(upper) == len(lower) == 5000
    # make_moons has means (0, 2/pi) and (1, 1/2 - 2/pi); then times 2, plus (-1, -0.2).
    assert upper.mean(0) == pytest.approx([-1, 4 / np.pi - 0.2], abs=0.03)
    assert lower.mean(0) == pytest.approx([1, 0.8 - 4 / np.pi], abs=0.03)


@pytest.mark.parametrize("steps", [1, 2])
def test_nothing_follows_an_action(steps: int) -> None:
    points = draw_points("moons", n=20)
    dataset = as_transitions(points, "moons", steps)
    assert (dataset.masks == 0).all()
    assert dataset.terminals.reshape(20, steps)[:, -1].tolist() == [1.0] * 20
    assert (dataset.actions[::steps] == points.positions).all()
    assert (dataset.actions[steps - 1 :: steps] == points.positions).all()
    assert (dataset.observations == 0).all()
    assert dataset.action_space.high.tolist() == [BOX, BOX]


def test_an_unknown_dataset_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no toy dataset 'moon'.*Did you mean 'moons'"):
        draw_points("moon")
