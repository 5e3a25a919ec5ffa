"""Correct data, and data that may be intended, are not reported as faults."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box
from pendulum_data import EPISODES, STEPS, Array, Columns, as_dataset, problems, reset_for_last, roll_out

from flowpolicies.inspection import inspect_dataset


def test_real_episodes_are_clean(columns: Columns) -> None:
    inspection = inspect_dataset(as_dataset(columns), env=gym.make("Pendulum-v1", max_episode_steps=STEPS))
    assert [(f.severity, f.check) for f in inspection.findings] == [("info", "flags"), ("info", "resimulation")]
    assert inspection.findings[0].message == "no transition terminates (masks are 1 everywhere)"
    assert inspection.findings[1].message.endswith("0.0% disagree with the stored next observation")
    assert inspection.not_judged == ()
    assert inspection.num_faults == 0
    assert inspection.facts["trajectories"] == "12, of 100 steps"
    assert inspection.facts["terminated"] == "0 of 12 trajectories; the others were truncated"


def constant_observation(columns: Columns) -> None:
    columns["observations"][:, 1] = columns["next_observations"][:, 1] = 3.0


def clipped_twice(columns: Columns) -> None:
    columns["actions"] = np.clip(20 * columns["actions"], -2, 2)


def constant_action(columns: Columns) -> None:
    columns["actions"][:] = 1.5


def narrow_actions(columns: Columns) -> None:
    columns["actions"] *= 0.05


def constant_rewards(columns: Columns) -> None:
    columns["rewards"][:] = -1


def clock_as_death(columns: Columns) -> None:
    columns["masks"] = 1 - columns["terminals"]


def terminal_on_the_way(columns: Columns) -> None:
    columns["masks"][437:440] = 0


def other_actions(columns: Columns) -> None:
    columns["actions"][300:400] = -columns["actions"][300:400]


def rounded(columns: Columns) -> None:
    columns["next_observations"] = columns["next_observations"].astype(np.float16).astype(np.float32)


WARNINGS = {
    "constant observation": (constant_observation, "observations", "1 of 3 components of observations never change: 1"),
    "saturated actions": (clipped_twice, "actions", "action components at a bound in up to"),
    "constant action": (constant_action, "actions", "action components that never change: 0"),
    "narrow actions": (narrow_actions, "actions", "action components that use less than 20% of their bounds: 0"),
    "constant rewards": (constant_rewards, "rewards", "all rewards are -1"),
    "time limits as terminations": (clock_as_death, "flags", "all 12 trajectories of the greatest length, 100 steps"),
    "terminal on the way": (terminal_on_the_way, "flags", "masks are 0 in 3 transitions after which the trajectory"),
    "actions of another sign in one": (
        other_actions,
        "alignment",
        "explain their steps worse than no action does: 1 (3)",
    ),
    "half precision": (rounded, "alignment", "but only slightly"),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_may_be_meant_so_is_a_warning(name: str, columns: Columns) -> None:
    corrupt, check, message = WARNINGS[name]
    corrupt(columns)
    assert problems(columns) == []
    (finding,) = problems(columns, "warning")
    assert finding.check == check
    assert message in finding.message


def frozen(columns: Columns) -> None:
    columns["observations"][300:400] = columns["next_observations"][300:400] = columns["observations"][300]
    columns["actions"][300:400] = np.linspace(-2, 2, 100)[:, None]


def test_a_frozen_trajectory_is_named(columns: Columns) -> None:
    frozen(columns)
    assert problems(columns) == []
    assert [(f.row, f.count) for f in problems(columns, "warning") if f.check == "observations"] == [(300, 1)]


def test_resets_as_last_states_are_harmless_where_nothing_looks_at_them(columns: Columns) -> None:
    reset_for_last(columns)
    columns["masks"] = 1 - columns["terminals"]
    assert problems(columns) == []
    (finding,) = (f for f in problems(columns, "warning") if f.check == "trajectories")
    assert finding.message.endswith("in 11 of 11 cases: the true one was lost; all masks are 0 there")


def test_pieces_of_longer_trajectories_are_right(columns: Columns) -> None:
    columns["terminals"] = (np.arange(EPISODES * STEPS) % 10 == 9).astype(np.float32)
    assert problems(columns) == problems(columns, "warning") == []
    (finding,) = (f for f in problems(columns, "info") if f.check == "trajectories")
    assert finding.message == (
        "the next observation of a trajectory's last row is the first observation of the next trajectory, in 108 of "
        "119 cases"
    )


def test_an_outlier_and_rare_rewards_are_no_shift(columns: Columns) -> None:
    columns["rewards"][777] = 1e6
    assert problems(columns) == []
    columns["rewards"] = -np.ones(EPISODES * STEPS, np.float32)
    columns["rewards"][440:446] = 0
    columns["actions"] = -columns["actions"]  # A regression of rewards that fits badly proves nothing.
    assert problems(columns) == []


def test_hidden_state_is_no_wrong_action(columns: Columns) -> None:
    """If one coordinate of a pendulum is hidden, actions predict it, in some trajectories wrongly."""
    columns["observations"][:, 1] = columns["next_observations"][:, 1] = 3.0
    assert [f.check for f in problems(columns, "warning")] == ["observations"]


def test_masks_inside_trajectories_are_right_where_the_source_judges_the_state_before(columns: Columns) -> None:
    terminal_on_the_way(columns)
    provenance = {"name": "x", "reward_timing": "state before the step"}
    inspection = inspect_dataset(as_dataset(columns, provenance=provenance))
    assert [(f.severity, f.count) for f in inspection.findings] == [("info", 3)]
    assert inspection.facts["success"] == "1 of 12 trajectories (8.3%)"


def test_deterministic_feedback_is_no_shift() -> None:
    """The next action depends on where the state went, and still no fault is reported."""

    def act(observation: Array) -> Array:
        cosine, sine, speed = np.split(observation, 3)
        return np.where(cosine < 0.8, 2 * np.sign(speed + 1e-3), -8 * sine - 2 * speed)

    columns = roll_out(act)
    assert problems(columns) == []
    columns["actions"] = np.roll(columns["actions"], 1, axis=0)
    assert [finding.check for finding in problems(columns)] == ["alignment"]


def test_too_few_rows_are_not_judged(columns: Columns) -> None:
    few = {key: column[:50].copy() for key, column in columns.items()}
    few["terminals"][-1] = 1
    few["actions"] = np.roll(few["actions"], 1, axis=0)
    assert problems(few) == []
    reasons = [f"{f.check}: {f.message}" for f in inspect_dataset(as_dataset(few)).not_judged]
    assert "resimulation: no environment and no simulator are known" in reasons[0]
    assert "resimulation: what only a simulator shows: components in another order" in reasons[1]
    assert "alignment: whether actions belong to their rows: fewer than 300 rows have neighbours" in reasons[2]


def test_values_outside_the_observation_space(columns: Columns) -> None:
    dataset = as_dataset(columns, observation_space=Box(-1.0, 1.0, (3,)))
    (finding,) = (f for f in inspect_dataset(dataset).findings if f.severity == "warning")
    assert "1 of 3 components of observations lie outside the observation space: 2 (component 2" in finding.message
