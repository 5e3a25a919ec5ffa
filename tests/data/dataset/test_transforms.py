from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import pendulum_data

from flowpolicies.data import RewardTransform, TransitionDataset, open_memmap, write_memmap


def dataset(rewards: list[float], ends: list[int]) -> TransitionDataset:
    n = len(rewards)
    zeros = np.zeros((n, 1), np.float32)
    terminals = np.isin(np.arange(n), ends)
    return TransitionDataset.from_arrays(
        zeros, zeros, rewards, zeros, masks=np.ones(n), terminals=terminals, name="hand-made"
    )


def transformed(name: Any, data: TransitionDataset) -> list[float]:
    return [float(r) for r in RewardTransform.fit(name, data).apply(data).rewards]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", [0, 1, 2, 5]),
        ("iql_antmaze", [-1, 0, 1, 4]),
        ("cql_antmaze", [-2, 2, 6, 18]),
        ("antmaze100", [0, 100, 200, 500]),
        # Returns 1 and 7: 1000 / 6.
        ("iql_locomotion", [0, 1000 / 6, 2000 / 6, 5000 / 6]),
        ("iql_mujoco", [0, 1000 / 6, 2000 / 6, 5000 / 6]),
        # Mean 2, variance (4 + 1 + 0 + 9) / 4.
        ("normalize", [-2 / 3.5**0.5, -1 / 3.5**0.5, 0, 3 / 3.5**0.5]),
    ],
)
def test_numbers(name: Any, expected: list[float]) -> None:
    found = transformed(name, dataset([0, 1, 2, 5], [1, 3]))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_sparse() -> None:
    assert transformed("sparse", dataset([-3, -0.5, 0, -1], [3])) == [-1, -1, 0, -1]
    with pytest.raises(ValueError, match="rewards of at most 0, but those of dataset 'hand-made' reach 2"):
        RewardTransform.fit("sparse", dataset([-1, 2], [1]))
    with pytest.raises(ValueError, match="those of the environment reach 1"):
        RewardTransform(name="sparse")(np.array([-1.0, 1.0]))


def test_the_dataset_says_what_was_done_to_it() -> None:
    data = dataset([0, 1, 2, 5], [1, 3])
    assert RewardTransform.fit("none", data).apply(data) is data
    changed = RewardTransform.fit("iql_locomotion", data).apply(data)
    assert changed.provenance["reward_transform"] == {"name": "iql_locomotion", "scale": 1000 / 6, "shift": 0.0}
    assert changed.name == "hand-made"
    assert changed.fingerprint != data.fingerprint
    assert data.rewards.tolist() == [0, 1, 2, 5]


def test_an_environment_gets_the_map_of_its_data() -> None:
    transform = RewardTransform.fit("normalize", dataset([0, 1, 2, 5], [1, 3]))
    assert transform(np.array([2.0])).tolist() == [0.0]
    assert transform(np.array([2.0])).dtype == np.float32


@pytest.mark.parametrize(
    ("name", "rewards", "fault"),
    [
        ("iql_locomotion", [1.0, 1.0], "all trajectories have the same return"),
        ("normalize", [1.0, 1.0], "all rewards are equal"),
    ],
)
def test_division_by_zero_is_refused(name: Any, rewards: list[float], fault: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' would divide by zero on dataset 'hand-made': {fault}"):
        RewardTransform.fit(name, dataset(rewards, [0, 1]))


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"unknown reward transform 'iql' \(known: none, sparse"):
        RewardTransform.fit("iql", dataset([1.0], [0]))


def test_a_memory_mapped_dataset_is_not_read_again(tmp_path: Path) -> None:
    raw = pendulum_data(100)
    opened = open_memmap(write_memmap(tmp_path / "data", raw))
    transform = RewardTransform.fit("antmaze100", opened)
    found = transform.apply(opened)
    np.testing.assert_allclose(found.rewards, 100 * raw.rewards, rtol=1e-6)
    assert isinstance(found.observations, np.memmap)
    assert found.provenance["reward_transform"]["name"] == "antmaze100"
    assert found.fingerprint == transform.apply(opened).fingerprint != opened.fingerprint
