"""Rows that are dropped, steps that are missing and actions that are clipped: each is said in words."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from gymnasium.spaces import Box
from stable_baselines3.common.buffers import ReplayBuffer

from flowpolicies.data import TransitionDataset, from_sb3_buffer, load_dataset

COLUMNS: dict[str, Any] = {"observations": ["o"], "actions": ["a"], "rewards": "r", "terminations": None}


def table(**changes: Any) -> pd.DataFrame:
    columns = {"run": [0, 0, 0, 1, 1], "t": range(5), "o": np.arange(5.0), "a": 0.5, "r": 1.0}
    return pd.DataFrame({**columns, **changes})


def test_steps_without_a_next_observation() -> None:
    with pytest.warns(UserWarning, match="dataset 'dataframe': 2 rows were dropped, the last ones of"):
        TransitionDataset.from_dataframe(table(), **COLUMNS, episode="run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        last = [0.5, 0.5, np.nan, 0.5, np.nan]  # Rows of last observations lose nothing.
        TransitionDataset.from_dataframe(table(a=last, r=[1, 1, 0, 1, 0]), **COLUMNS, episode="run")
        assert len(TransitionDataset.from_dataframe(table(), **COLUMNS, episode="run", next_observations=["o"])) == 5


@pytest.mark.parametrize("steps", [[0, 1, 3, 0, 1], [0, 4, 12, 0, 4]])
def test_missing_steps(steps: list[int]) -> None:
    with pytest.warns(UserWarning, match=r"column 't' leaves out steps in 1 places, first after \d in episode 0"):
        TransitionDataset.from_dataframe(table(t=steps), **COLUMNS, episode="run", step="t", next_observations=["o"])


def test_steps_of_equal_strides_and_times_have_no_gaps() -> None:
    for steps in ([0, 4, 8, 0, 4], [0.0, 1.0, 3.0, 0.0, 1.0], pd.to_datetime([1, 2, 9, 1, 2])):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            TransitionDataset.from_dataframe(
                table(t=steps), **COLUMNS, episode="run", step="t", next_observations=["o"]
            )


def test_text_does_not_sort_steps() -> None:
    with pytest.raises(ValueError, match=r"column 't' sorts the rows, and holds .*, not numbers or times"):
        TransitionDataset.from_dataframe(table(t=["8", "9", "10", "1", "2"]), **COLUMNS, episode="run", step="t")


def write(path: Path, actions: Any) -> Path:
    flags = np.arange(6) % 3 == 2
    with h5py.File(path, "w") as file:
        arrays = {"observations": np.ones((6, 2)), "actions": actions, "rewards": np.ones(6)}
        for key, values in {**arrays, "terminals": np.zeros(6), "timeouts": flags}.items():
            file[key] = values
    return path


def test_rows_of_hdf5_files(tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5", np.zeros((6, 1)))
    with pytest.warns(UserWarning, match="dataset 'data': 2 of 6 rows were dropped, the last ones of"):
        dataset = load_dataset(path)
    assert dataset.provenance["dropped_rows"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Who asks for it knows.
        assert load_dataset(path, next_observations="shifted").fingerprint == dataset.fingerprint


def test_actions_beyond_the_bounds_to_which_they_are_clipped(tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5", np.array([0, 0.5, 1, 2.0, -3, 0])[:, None])
    with pytest.warns(UserWarning, match="2 of 4 actions lie outside the bounds of action_space, from -3 to 2,"):
        load_dataset(path, clip_actions=True, next_observations="shifted", terminals="inside")


def test_the_oldest_step_of_a_buffer_that_saves_memory() -> None:
    spaces = Box(-9, 9, (1,)), Box(-1, 1, (1,))
    buffer = ReplayBuffer(5, *spaces, device="cpu", optimize_memory_usage=True, handle_timeout_termination=False)
    for i in range(7):
        buffer.add(np.full(1, i), np.full(1, i + 1), np.zeros(1), np.zeros(1), np.zeros(1), [{}])
    with pytest.warns(UserWarning, match=r"the oldest step of each environment was dropped \(1 of 5 rows\)"):
        dataset = from_sb3_buffer(buffer)
    assert dataset.provenance["dropped_rows"] == 1
