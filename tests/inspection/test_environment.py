"""Comparison with an environment, and with a simulator that has the true dynamics."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box
from pendulum_data import EPISODES, STEPS, Array, Columns, as_dataset, join_by_shift, problems

from flowpolicies.inspection import Resimulated, inspect_dataset
from flowpolicies.inspection.environment import unexplained


def test_spaces_bounds_and_starts_are_those_of_the_environment(columns: Columns) -> None:
    env = gym.make("Pendulum-v1", max_episode_steps=50)
    dataset = as_dataset(columns, action_space=Box(-4.0, 4.0, (1,)))
    (finding,) = (f for f in inspect_dataset(dataset, env=env).findings if f.severity == "fault")
    assert (finding.check, "the action_space of the dataset is Box(-4.0, 4.0" in finding.message) == (
        "environment",
        True,
    )
    assert "50 steps" in " ".join(f.message for f in problems(columns, "info", env=env))
    columns["observations"][:, 2] += 100
    columns["next_observations"][:, 2] += 100
    (warning,) = problems(columns, "warning", env=env)
    assert warning.check == "environment"
    assert "1 of 3 components of observations start outside of the data's range" in warning.message


def simulator(
    columns: Columns, *, off: float = 0.0, actions: Array | None = None
) -> Callable[[Array, Array], Resimulated]:
    """Simulates the true dynamics of Pendulum from the true states; `off` is an error as of another version."""
    states = columns["observations"].astype(np.float64)
    true_rewards, true_masks = columns["rewards"].copy(), columns["masks"].copy()

    def resimulate(rows: Array, given: Array) -> Resimulated:
        angle, speed = np.arctan2(states[rows, 1], states[rows, 0]), states[rows, 2]
        speed = np.clip(speed + (15 * np.sin(angle) + 3 * given[:, 0].astype(np.float64)) * 0.05, -8, 8)
        angle = angle + speed * 0.05 * (1 + off)
        following = np.stack([np.cos(angle), np.sin(angle), speed], 1)
        return Resimulated(following, true_rewards[rows], true_masks[rows])

    return resimulate


def test_resimulation_agrees_with_real_data(columns: Columns) -> None:
    (finding,) = (f for f in problems(columns, "info", resimulate=simulator(columns)) if f.check == "resimulation")
    assert finding.message.endswith("re-simulated transitions, 0.0% disagree with the stored next observation")
    assert problems(columns, resimulate=simulator(columns)) == []


def test_resimulation_finds_a_scaled_action_and_a_shifted_one(columns: Columns) -> None:
    resimulate = simulator(columns)
    true = columns["actions"]
    columns["actions"] = 0.5 * true
    (finding,) = problems(columns, resimulate=resimulate)
    assert finding.check == "resimulation"
    assert "with 2 times the actions 0.0% do: actions were scaled" in finding.message
    columns["actions"] = np.roll(true, 1, axis=0)
    regression, simulated = problems(columns, resimulate=resimulate)
    assert (regression.check, simulated.check) == ("alignment", "resimulation")
    assert "with the action of the row after it" in simulated.message


@pytest.mark.parametrize("which", [slice(3, 4), slice(None, None, 2)])
def test_resimulation_finds_shifted_actions_of_some_trajectories(which: slice, columns: Columns) -> None:
    resimulate = simulator(columns)
    actions = columns["actions"].reshape(EPISODES, STEPS, 1)
    actions[which] = np.roll(actions[which], 1, axis=1)
    (finding,) = (f for f in problems(columns, resimulate=resimulate) if f.check == "resimulation")
    assert "with the action of the row after it" in finding.message
    assert finding.episode == (which.start or 0)


def test_a_simulator_that_parts_in_a_first_row_shows_no_lost_end(columns: Columns) -> None:
    """Objects that a reset puts into each other fly apart in any direction."""
    rows = np.array([0, 99, 100, 437])
    result = simulator(columns)(rows, columns["actions"][rows])
    away = Resimulated(result.next_observations + 5, result.rewards, result.masks)
    assert unexplained(as_dataset(columns), lambda *_: away, rows).tolist() == [99, 437]


def test_a_slightly_different_simulator_is_a_warning(columns: Columns) -> None:
    resimulate = simulator(columns, off=0.1)
    assert problems(columns, resimulate=resimulate) == []
    (finding,) = problems(columns, "warning", resimulate=resimulate)
    assert finding.message.endswith("but only slightly")


@pytest.mark.parametrize(("by", "side"), [(1, "before"), (-1, "after")])
def test_resimulation_finds_rewards_of_another_step(by: int, side: str, columns: Columns) -> None:
    columns["rewards"] = (np.arange(len(columns["rewards"])) % 7 == 0).astype(np.float32)
    resimulate = simulator(columns)
    columns["rewards"] = np.roll(columns["rewards"], by)
    (finding,) = problems(columns, resimulate=resimulate)
    assert finding.message.endswith(f"but equal those of the row {side} them: rewards are one step off")


def test_a_jump_that_the_simulator_makes_too_is_none(columns: Columns) -> None:
    join_by_shift(columns)
    true, teleport = simulator(columns), columns["observations"][4 * STEPS]

    def resimulate(rows: Array, given: Array) -> Resimulated:
        result = true(rows, given)
        jumps = (rows == 4 * STEPS - 1)[:, None]
        return result._replace(next_observations=np.where(jumps, teleport, result.next_observations))

    assert problems(columns, resimulate=resimulate) == []
    assert [f.check for f in problems(columns, resimulate=true)] == ["trajectories"]


def test_masks_beside_the_environment_s_are_found_where_they_change(columns: Columns) -> None:
    columns["rewards"][:] = 0
    resimulate = simulator(columns)
    columns["masks"] = 1 - columns["terminals"]
    (finding,) = problems(columns, resimulate=resimulate, sample=1200)
    assert (finding.check, finding.row) == ("rewards", 99)
