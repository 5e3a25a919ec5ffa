import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from gymnasium.spaces import Box, Dict

from flowpolicies.data import TransitionDataset

COLUMNS: dict[str, Any] = {
    "observations": ["x", "y"],
    "actions": ["force"],
    "rewards": "reward",
    "terminations": "done",
    "episode": "run",
}


def make_frame(**changes: Any) -> pd.DataFrame:
    """Run "b" has three steps and terminates, run "a" has two and is cut; their rows are mixed."""
    return pd.DataFrame(
        {
            "run": ["b", "a", "b", "a", "b"],
            "time": [0, 5, 1, 6, 2],
            "x": [0.0, 10, 1, 11, 2],
            "y": [0.5, 10.5, 1.5, 11.5, 2.5],
            "force": [0.0, 0.1, 0.2, 0.3, 0.4],
            "reward": [0, 10, 1, 11, 2],
            "done": [False, False, False, False, True],
        }
        | changes
    )


def first(observations: Any) -> list[float]:
    return [float(value) for value in observations[:, 0]]


def test_next_observations_are_those_of_the_episodes_following_rows() -> None:
    dataset = TransitionDataset.from_dataframe(make_frame(), **COLUMNS)
    assert first(dataset.observations) == [0, 1, 2, 10]
    assert first(dataset.next_observations) == [1, 2, 2, 11]  # The terminal row's is never read; the cut row is gone.
    np.testing.assert_array_equal(dataset.rewards, [0, 1, 2, 10])
    np.testing.assert_array_equal(dataset.actions[:, 0], np.float32([0, 0.2, 0.4, 0.1]))
    np.testing.assert_array_equal(dataset.masks, [1, 1, 0, 1])
    np.testing.assert_array_equal(dataset.terminals, [0, 0, 1, 1])
    assert dataset.provenance == {"name": "dataframe", "source": "dataframe", "dropped_rows": 1}


def test_last_rows_without_actions_hold_the_last_observation_and_nothing_is_lost() -> None:
    frame = make_frame(force=[0.0, 0.1, 0.2, np.nan, np.nan], reward=[0, 10, 1, np.nan, 0])
    dataset = TransitionDataset.from_dataframe(frame, **COLUMNS)
    assert first(dataset.observations) == [0, 1, 10]
    assert first(dataset.next_observations) == [1, 2, 11]
    np.testing.assert_array_equal(dataset.masks, [1, 0, 1])  # The flag stood in the row of the last observation.
    np.testing.assert_array_equal(dataset.terminals, [0, 1, 1])


def test_rewards_without_actions_are_refused() -> None:
    frame = make_frame(force=[0.0, 0.1, 0.2, np.nan, 0.4])
    with pytest.raises(
        ValueError, match=r"the last row of episode 1 has no actions, but a reward of 11\. A reward bel"
    ):
        TransitionDataset.from_dataframe(frame, **COLUMNS)


def test_rows_are_sorted_by_step() -> None:
    shuffled = make_frame().iloc[[4, 3, 2, 1, 0]]
    dataset = TransitionDataset.from_dataframe(shuffled, **COLUMNS, step="time")
    assert dataset.fingerprint == TransitionDataset.from_dataframe(make_frame(), **COLUMNS).fingerprint
    with pytest.raises(ValueError, match=r"episode 0 has two rows with time = 1\. Steps of an episode must differ"):
        TransitionDataset.from_dataframe(make_frame(time=[0, 5, 1, 6, 1]), **COLUMNS, step="time")


def test_next_observations_of_the_table_keep_every_row() -> None:
    frame = make_frame().assign(next_x=[1, 11, 2, 12, 3], next_y=0)
    dataset = TransitionDataset.from_dataframe(frame, **COLUMNS, next_observations=["next_x", "next_y"])
    assert first(dataset.observations) == [0, 1, 2, 10, 11]
    assert first(dataset.next_observations) == [1, 2, 3, 11, 12]
    np.testing.assert_array_equal(dataset.masks, [1, 1, 0, 1, 1])
    assert "dropped_rows" not in dataset.provenance


def test_episodes_by_flags_alone() -> None:
    frame = make_frame(done=[False, True, False, False, False]).assign(cut=[0, 0, 0, 1, 0])
    columns = COLUMNS | {"episode": None, "truncations": "cut"}
    dataset = TransitionDataset.from_dataframe(frame, **columns)
    # Rows 0-1 terminate; 2-3 are cut, and 4 is a beginning without an end: 3 and 4 have no next observation.
    assert first(dataset.observations) == [0, 10, 1]
    assert first(dataset.next_observations) == [10, 10, 11]
    np.testing.assert_array_equal(dataset.masks, [1, 0, 1])
    np.testing.assert_array_equal(dataset.terminals, [0, 1, 1])


def test_dict_observations_and_spaces() -> None:
    columns = COLUMNS | {"observations": {"place": ["x", "y"], "height": ["y"]}}
    space = Box(0.0, 2.0, (1,), np.float32)
    dataset = TransitionDataset.from_dataframe(make_frame(), **columns, action_space=space, name="log")
    assert isinstance(dataset.observation_space, Dict)
    assert isinstance(dataset.observations, dict)
    assert dataset.observations["place"].shape == (4, 2)
    assert first(dataset.observations["height"]) == [0.5, 1.5, 2.5, 10.5]
    assert dataset.action_space == space


@pytest.mark.parametrize(
    ("changes", "columns", "message"),
    [
        (
            {},
            {"rewards": "rewardd"},
            r"there is no column 'rewardd' \(there are: run, time, .*\)\. Did you mean 'reward'",
        ),
        ({}, {"observations": "x"}, r"expected a list of column names, got 'x'"),
        ({}, {"observations": ["x", "run"]}, r"the values of column 'run' are .*, not numbers"),
        ({}, {"episode": None, "terminations": None}, r"say where episodes end, by episode=, or by terminations="),
        ({}, {"episode": None, "step": "time"}, r"step='time' sorts the rows of an episode, so it needs episode="),
        ({"run": ["b", None, "b", "a", "b"]}, {}, r"column 'run' is empty in row 1"),
        ({"run": [1, 2, 1, np.nan, 1]}, {}, r"column 'run' is empty in row 3"),
        ({"done": [0, 0, 1, 0, 1]}, {}, r"'done' is true at step 1 of episode 0, which continues"),
        ({"done": [0, 0, 0, 2, 1]}, {}, r"the values of column 'done' must be 0 or 1, but row 3 has 2\."),
        ({"x": [0, 10, np.nan, 11, 2]}, {}, r"observations hold 1 values .* first in row 1 \(episode 0, step 1\)"),
        ({"force": [0, 0, np.nan, 0, 0]}, {}, r"actions hold 1 values .* first in row 1 \(episode 0, step 1\)"),
        ({"force": [0, 1, 0, 0, 1]}, {}, r"actions are int64, and look like discrete actions; .* action_space="),
        ({"force": [0, 3.0, 0, 0, 0]}, {}, r"first beyond \[-1, 1\] in row 3 \(episode 1, step 0\)"),
        ({"force": [0, 3, 0, 0, 0]}, {"action_space": Box(-1, 1, (1,))}, r"first in row 3 \(episode 1, step 0\)"),
    ],
)
def test_wrong_tables_are_explained(changes: dict[str, Any], columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="dataset 'log': .*" + message):
        TransitionDataset.from_dataframe(make_frame(**changes), **COLUMNS | columns, name="log")


def test_empty_tables_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dataset 'dataframe': the table has no rows"):
        TransitionDataset.from_dataframe(make_frame().iloc[:0], **COLUMNS)


def test_pandas_is_not_imported_by_us() -> None:
    code = "import sys, flowpolicies.data.dataset.dataframe; assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_columns_may_be_called_by_numbers() -> None:
    frame = pd.DataFrame(np.array([[1.0, 0.1, 2.0, 0], [2.0, 0.2, 3.0, 1]]))
    dataset = TransitionDataset.from_dataframe(frame, observations=[0], actions=[1], rewards=2, terminations=3)
    np.testing.assert_array_equal(dataset.rewards, [2, 3])
    with pytest.raises(ValueError, match=r"there is no column '4' \(there are: 0, 1, 2, 3\)"):
        TransitionDataset.from_dataframe(frame, observations=[4], actions=[1], rewards=2, terminations=3)


def test_two_columns_of_one_name_are_refused() -> None:
    frame = pd.DataFrame(np.zeros((2, 4)), columns=["o", "o", "a", "d"])
    with pytest.raises(ValueError, match=r"2 columns are called 'o'\. Rename or drop all but one"):
        TransitionDataset.from_dataframe(frame, observations=["o"], actions=["a"], rewards="a", terminations="d")


def test_a_row_of_the_last_observation_may_have_gaps_everywhere_else() -> None:
    gap = np.nan
    frame = pd.DataFrame({"o": [1.0, 2, 3], "a": [0.1, 0.2, gap], "r": [1.0, 2, gap], "d": [0, 1, gap], "e": 0})
    columns: dict[str, Any] = {"observations": ["o"], "actions": ["a"], "rewards": "r", "terminations": "d"}
    dataset = TransitionDataset.from_dataframe(frame, **columns, episode="e")
    np.testing.assert_array_equal(dataset.next_observations[:, 0], [2, 3])
    np.testing.assert_array_equal(dataset.masks, [1, 0])
    frame.loc[0, "d"] = gap
    with pytest.raises(ValueError, match="the values of column 'd' must be 0 or 1, but row 0 has nan"):
        TransitionDataset.from_dataframe(frame, **columns, episode="e")
