"""The order of the keys of a Dict space is the order in which networks see their values: nothing may change it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import tiny

from flowpolicies import FQL, FlowPolicy
from flowpolicies.data import TransitionDataset
from flowpolicies.data.formats.memmap import open_memmap, write_memmap
from flowpolicies.policies.schema import VERSION
from flowpolicies.spaces.layout import flatten_arrays

VELOCITY, POSITION = spaces.Box(-9, 9, (3,)), spaces.Box(-9, 9, (2,))
UNSORTED, SORTED = spaces.Dict(velocity=VELOCITY, position=POSITION), spaces.Dict(position=POSITION, velocity=VELOCITY)


def rows(n: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.normal(size=(n, size)).astype(np.float32) for key, size in (("velocity", 3), ("position", 2))}


def dataset(space: spaces.Dict = UNSORTED, n: int = 60) -> TransitionDataset:
    rng = np.random.default_rng(1)
    ends = np.arange(n) % 20 == 19
    return TransitionDataset.from_arrays(
        rows(n), rng.uniform(-1, 1, (n, 1)), rng.normal(size=n), rows(n), terminations=ends, observation_space=space
    )


class Moving(gymnasium.Env[Any, Any]):
    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, space: spaces.Dict) -> None:
        self.observation_space, self.age = space, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.age = 0
        return self.observe(), {}

    def observe(self) -> dict[str, np.ndarray]:
        return {key: self.np_random.normal(size=box.shape).astype(np.float32) for key, box in UNSORTED.items()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.age += 1
        return self.observe(), 0.0, False, self.age == 5, {}


@pytest.fixture(scope="module")
def model() -> FQL:
    trained = tiny(FQL, dataset=dataset())
    trained.learn_offline(3)
    assert list(trained.observation_space) == ["velocity", "position"]
    return trained


def act(policy: Any) -> np.ndarray:
    return policy.predict(rows(8), deterministic=True)[0]


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A policy file with another declaration."""
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()["config"])
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(config)
    save_file(weights, path, metadata={"config": json.dumps(config)})
    return path


def test_a_policy_file_acts_as_the_policy(model: FQL, tmp_path: Path) -> None:
    model.policy.save(tmp_path / "p")
    loaded = FlowPolicy.load(tmp_path / "p", device="cpu")
    assert list(loaded.observation_space) == ["velocity", "position"]
    np.testing.assert_array_equal(act(loaded), act(model))


def test_a_file_of_version_1_has_the_order_in_which_it_holds_the_keys(model: FQL, tmp_path: Path) -> None:
    def as_version_1(config: dict[str, Any]) -> None:
        config["version"] = 1
        del config["observation_space"]["order"]
        assert list(config["observation_space"]["spaces"]) == ["velocity", "position"]

    model.policy.save(tmp_path / "p")
    np.testing.assert_array_equal(act(FlowPolicy.load(rewritten(tmp_path / "p", as_version_1))), act(model))


def test_a_program_that_sorts_the_keys_of_json_does_no_harm(model: FQL, tmp_path: Path) -> None:
    def sort(config: dict[str, Any]) -> None:
        config["observation_space"]["spaces"] = dict(sorted(config["observation_space"]["spaces"].items()))

    model.policy.save(tmp_path / "p")
    np.testing.assert_array_equal(act(FlowPolicy.load(rewritten(tmp_path / "p", sort))), act(model))


def test_a_file_of_a_newer_version_is_refused(model: FQL, tmp_path: Path) -> None:
    model.policy.save(tmp_path / "p")
    with pytest.raises(ValueError, match=rf"version is {VERSION + 1}, .* reads versions 1 to {VERSION}.*pip install"):
        FlowPolicy.load(rewritten(tmp_path / "p", lambda config: config.update(version=VERSION + 1)))


def test_a_model_zip_acts_as_the_model_also_with_an_environment_of_another_order(model: FQL, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(act(FQL.load(tmp_path / "m")), act(model))
    other = FQL.load(tmp_path / "m", env=Moving(SORTED))
    np.testing.assert_array_equal(act(other), act(model))
    other.learn(10)
    np.testing.assert_array_equal(flatten_arrays(other.observation_space, rows(8))[:, :3], rows(8)["velocity"])


@pytest.mark.parametrize("kind", ["npz", "memmap"])
def test_files_of_datasets_keep_the_order(kind: str, tmp_path: Path) -> None:
    if kind == "memmap":
        write_memmap(tmp_path / "data", dataset())
        loaded = open_memmap(tmp_path / "data")
    else:
        loaded = TransitionDataset.load(dataset().save(tmp_path / "data.npz"))
    assert list(loaded.observation_space) == ["velocity", "position"]
    np.testing.assert_array_equal(act(tiny(FQL, dataset=loaded)), act(tiny(FQL, dataset=dataset())))


@pytest.mark.parametrize("kind", ["arrays", "memmap"])
@pytest.mark.parametrize("order", [UNSORTED, SORTED], ids=["unsorted", "sorted"])
def test_data_of_another_order_are_read_by_name(kind: str, order: spaces.Dict, tmp_path: Path) -> None:
    data = dataset(SORTED if order is UNSORTED else UNSORTED)
    if kind == "memmap":
        write_memmap(tmp_path / "data", data)
        data = open_memmap(tmp_path / "data")
    found = tiny(FQL, env=Moving(order), dataset=data)
    batch = found.transitions.sample(64).observations.numpy()
    known = {row.tobytes() for row in flatten_arrays(order, rows()).numpy()}
    assert {row.tobytes() for row in batch} <= known


def test_online_and_offline_rows_have_one_order() -> None:
    found = tiny(FQL, env=Moving(UNSORTED), dataset=dataset(SORTED), learning_starts=2).learn(10)
    rows_of = found.transitions.online.columns["observations"]
    assert rows_of.shape[1] == 5
    assert found.transitions.offline.columns["observations"][0].tolist() == [
        *rows()["velocity"][0].tolist(),
        *rows()["position"][0].tolist(),
    ]
