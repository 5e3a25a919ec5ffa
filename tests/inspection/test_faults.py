"""Faults that are put into real episodes: each is found, and no other fault is reported."""

from __future__ import annotations

import numpy as np
import pytest
from pendulum_data import (
    EPISODES,
    STEPS,
    Columns,
    Corruption,
    copy_episode,
    join,
    join_by_shift,
    problems,
    put,
    reset_for_last,
)


def shift(key: str, by: int) -> Corruption:
    def corrupt(columns: Columns) -> None:
        columns[key] = np.roll(columns[key], by, axis=0)

    return corrupt


def drift(*keys: str) -> Corruption:
    """Concatenates T+1 observations of each episode beside T actions, as d3rlpy's Minari loader does."""

    def corrupt(columns: Columns) -> None:
        states, following = (columns[key].reshape(EPISODES, STEPS, -1) for key in ("observations", "next_observations"))
        all_states = np.concatenate([states, following[:, -1:]], axis=1).reshape(-1, states.shape[2])
        length = len(columns["actions"])
        drifting = {"observations": all_states[:length], "next_observations": all_states[1 : length + 1]}
        columns.update({key: drifting[key] for key in keys})

    return corrupt


def swap_flags(columns: Columns) -> None:
    columns["masks"], columns["terminals"] = columns["terminals"], columns["masks"]


def invert(key: str) -> Corruption:
    def corrupt(columns: Columns) -> None:
        columns[key] = 1 - columns[key]
        columns["terminals"][-1] = 1

    return corrupt


def invert_terminations(columns: Columns) -> None:
    columns["masks"] = columns["terminals"].copy()


def scale_actions(columns: Columns) -> None:
    columns["actions"] = 4 * columns["actions"]


def shuffle(columns: Columns) -> None:
    order = np.append(np.random.default_rng(0).permutation(len(columns["actions"]) - 1), len(columns["actions"]) - 1)
    for key in ("observations", "next_observations", "actions", "rewards"):
        columns[key] = columns[key][order]


def interleave(columns: Columns) -> None:
    for key, column in columns.items():
        columns[key] = np.stack([column[: 6 * STEPS], column[6 * STEPS :]], 1).reshape(column.shape)


def of_one(key: str, by: int) -> Corruption:
    """Shifts a column in trajectory 3 only."""

    def corrupt(columns: Columns) -> None:
        columns[key][3 * STEPS : 4 * STEPS] = np.roll(columns[key][3 * STEPS : 4 * STEPS], by, axis=0)

    return corrupt


def of_every_other(columns: Columns) -> None:
    actions = columns["actions"].reshape(EPISODES, STEPS, 1)
    actions[::2] = np.roll(actions[::2], 1, axis=1)


def ends_beside(by: int) -> Corruption:
    def corrupt(columns: Columns) -> None:
        reset_for_last(columns)
        columns["terminals"] = np.roll(columns["terminals"], by)
        columns["terminals"][[0, -1]] = [0, 1]

    return corrupt


def double(columns: Columns) -> None:
    order = np.sort(np.append(np.arange(len(columns["actions"])), [150, 437, 900]))
    columns.update({key: column[order] for key, column in columns.items()})


FAULTS = {
    "actions of the step before": (
        shift("actions", 1),
        "alignment",
        "by one row: the action of the row after",
        0,
    ),
    "actions of the next step": (
        shift("actions", -1),
        "alignment",
        "shifted by one row: the action of the row before",
        0,
    ),
    "next observations one on": (shift("next_observations", -1), "alignment", "observation 2 rows later", 0),
    "next observations one back": (shift("next_observations", 1), "alignment", "the observation of the same row", 0),
    "drift of both": (drift("observations", "next_observations"), "alignment", "actions and observations drift", 100),
    "drift of observations": (drift("observations"), "alignment", "next_observations drift apart", 100),
    "drift of next observations": (drift("next_observations"), "alignment", "next_observations drift apart", 100),
    "shuffled rows": (shuffle, "alignment", "differ from the observations of the next row", 0),
    "interleaved environments": (interleave, "alignment", "the rows of 2 environments are interleaved", 0),
    "joined, true next": (join, "trajectories", "trajectories are joined: next_observations differ", 399),
    "joined, by shift": (join_by_shift, "trajectories", "jumps inside trajectories", 399),
    "masks and terminals swapped": (swap_flags, "flags", "masks and terminals are exchanged", 0),
    "terminals inverted": (invert("terminals"), "flags", "terminals are 1 in 99.1% of the transitions", 0),
    "masks all 0": (invert("masks"), "flags", "masks are 0 in 100.0% of the transitions", 0),
    "terminations as masks": (invert_terminations, "flags", "masks are 0 in 99.0% of the transitions", 0),
    "mask of a half": (put("masks", 0.5), "flags", "masks are neither 0 nor 1 in 1 transitions", 437),
    "rewards of the step before": (shift("rewards", 1), "rewards", "each belongs to the row before it", 0),
    "rewards of the next step": (shift("rewards", -1), "rewards", "each belongs to the row after it", 0),
    "actions scaled": (scale_actions, "actions", "actions lie outside the bounds of action_space", None),
    "NaN": (put("observations", np.nan), "values", "observations are NaN or infinite in 1 transitions", 437),
    "infinity": (put("rewards", np.inf), "values", "rewards are NaN or infinite in 1 transitions", 437),
    "actions two rows late": (
        shift("actions", 2),
        "alignment",
        "shifted: the action 2 rows later explains",
        0,
    ),
    "actions two rows early": (shift("actions", -2), "alignment", "the action 2 rows earlier explains", 0),
    "next of one, one on": (of_one("next_observations", -1), "alignment", "observation 2 rows later", 300),
    "actions of one, late": (
        of_one("actions", 1),
        "alignment",
        "shifted by one row: 1 (3); the actions of the row after",
        300,
    ),
    "actions of one, early": (
        of_one("actions", -1),
        "alignment",
        "1 (3); the actions of the row before",
        300,
    ),
    "actions of every other": (
        of_every_other,
        "alignment",
        "trajectories whose actions are shifted by one row: ",
        None,
    ),
    "resets as last states": (reset_for_last, "trajectories", "in 11 of 11 cases: the true one was lost", 99),
    "ends one early": (ends_beside(-1), "trajectories", "is in the row after the terminal", 98),
    "ends one late": (ends_beside(1), "trajectories", "is in the row before the terminal", 100),
    "rows twice": (double, "duplicates", "rows that are stored twice in succession: about 3", 150),
    "copied episode": (copy_episode, "duplicates", "exact copies of another one: 1 (7 of 2)", 700),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_alone(name: str, columns: Columns) -> None:
    corrupt, check, message, row = FAULTS[name]
    corrupt(columns)
    (finding,) = problems(columns)
    assert finding.check == check
    assert message in finding.message
    assert finding.advice
    assert finding.count > 0
    if row is not None:
        assert finding.row == row


def test_the_place_of_a_finding_counts_from_zero(columns: Columns) -> None:
    put("actions", np.nan)(columns)
    (finding,) = problems(columns)
    assert (finding.row, finding.episode, finding.step, finding.count) == (437, 4, 37, 1)


@pytest.mark.parametrize(("by", "side"), [(1, "after"), (-1, "before")])
def test_best_rewards_beside_the_masks_of_0_are_a_fault(by: int, side: str, columns: Columns) -> None:
    reached = np.arange(len(columns["rewards"])) % 50 == 20
    columns["masks"], columns["rewards"] = 1 - reached.astype(np.float32), reached.astype(np.float32) - 1
    assert problems(columns) == []
    columns["rewards"] = np.roll(columns["rewards"], by)
    (finding,) = problems(columns)
    assert finding.check == "rewards"
    assert f"is in the row {side} each mask of 0 (48 rows disagree, 0 after a shift)" in finding.message
