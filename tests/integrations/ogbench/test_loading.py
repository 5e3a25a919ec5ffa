"""Loaded datasets equal those that OGBench's own code makes from the same files."""

import json
import os
import shutil
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import ogbench
import pytest
from gymnasium.spaces import Box

from flowpolicies.data import read_npz, write_npz
from flowpolicies.data.formats.memmap import from_shards
from flowpolicies_ogbench import generate, loading, make_env, reading, task_names, versions
from flowpolicies_ogbench.loading import load
from flowpolicies_ogbench.names import parse_name

POINTMAZE = "pointmaze-medium-navigate-singletask-task1-v0"
FILE = "pointmaze-medium-navigate-v0.npz"


@pytest.mark.parametrize("split", ["train", "val"])
def test_transitions_are_those_of_ogbench(pointmaze_data: Path, split: str) -> None:
    _, *expected = ogbench.make_env_and_datasets(POINTMAZE, dataset_path=str(pointmaze_data / FILE))
    arrays = dict(zip(("train", "val"), expected, strict=True))[split]
    dataset = load(POINTMAZE, data_dir=pointmaze_data, split=split)
    limit = np.float32(1 - 1e-5)
    for key in ("observations", "next_observations", "rewards", "masks", "terminals"):
        np.testing.assert_array_equal(getattr(dataset, key), arrays[key])
    np.testing.assert_array_equal(dataset.actions, np.clip(arrays["actions"], -limit, limit))
    assert dataset.actions.max() == limit
    assert dataset.observation_space == Box(-np.inf, np.inf, (2,), np.float32)
    assert dataset.action_space == Box(-1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize("storage", ["ram", "memmap"])
@pytest.mark.parametrize("mode", ["-singletask-task1", "", "-oraclerep"])
def test_compact_data_are_the_same_data(pointmaze_data: Path, tmp_path: Path, mode: str, storage: Any) -> None:
    name = f"pointmaze-medium-navigate{mode}-v0"
    options: dict[str, Any] = {"data_dir": pointmaze_data, "storage": storage, "cache_dir": tmp_path}
    full, compact = load(name, **options), load(name, compact=True, **options)
    assert compact.fingerprint == full.fingerprint
    assert compact.final_observations is not None
    for key, array in compact.arrays().items():
        np.testing.assert_array_equal(array, full.arrays()[key], err_msg=key)
    own = dict(np.load(pointmaze_data / FILE))
    ends = own["terminals"].astype(bool)
    states = compact.stored()["final_observations" if mode.startswith("-single") else "final_observations/observation"]
    np.testing.assert_array_equal(states, own["observations"][ends])


def test_rewards_judge_the_state_before_the_step(pointmaze_data: Path) -> None:
    dataset = load(POINTMAZE, data_dir=pointmaze_data)
    env = make_env(POINTMAZE, seed=0)
    env.reset()
    simulator: Any = env.env.unwrapped

    def is_success(observation: Any) -> bool:
        simulator.set_xy(observation)
        return bool(simulator.compute_success())

    successes = np.array([is_success(observation) for observation in dataset.observations])
    assert 0 < successes.sum() < len(dataset)
    np.testing.assert_array_equal(dataset.rewards, np.where(successes, 0, -1))
    np.testing.assert_array_equal(dataset.masks, np.where(successes, 0, 1))
    assert (dataset.terminals[successes] == 0).any()  # The trajectory continues after a success.
    np.testing.assert_array_equal(dataset.episode_ends, [499, 999, 1499])


@pytest.mark.usefixtures("global_numpy_state")
def test_loading_is_deterministic_and_tasks_differ_in_rewards_only(pointmaze_data: Path) -> None:
    first, second = load(POINTMAZE, data_dir=pointmaze_data), load(POINTMAZE, data_dir=pointmaze_data)
    assert first.fingerprint == second.fingerprint
    datasets = [load(name, data_dir=pointmaze_data) for name in task_names(POINTMAZE)]
    assert len({dataset.fingerprint for dataset in datasets}) == 5
    for dataset in datasets:
        np.testing.assert_array_equal(dataset.observations, first.observations)
    default = load("pointmaze-medium-navigate-singletask-v0", data_dir=pointmaze_data)
    assert default.fingerprint == datasets[0].fingerprint


def test_provenance(pointmaze_data: Path) -> None:
    provenance = load(POINTMAZE, data_dir=pointmaze_data, split="val").provenance
    generated = provenance.pop("generated")
    assert provenance.pop("ogbench") == generated["versions"]["ogbench"]
    assert provenance == {
        "name": POINTMAZE,
        "source": "ogbench",
        "file": "pointmaze-medium-navigate-v0-val.npz",
        "split": "val",
        "reward_timing": "state before the step",
        "environment_reward_timing": "state before the step",
        "sparse": False,
        "action_margin": 1e-5,
    }
    assert generated == json.loads((pointmaze_data / "pointmaze-medium-navigate-v0.json").read_text())


def test_goals_are_the_last_states_of_trajectories(pointmaze_data: Path) -> None:
    name = "pointmaze-medium-navigate-v0"
    dataset, single = load(name, data_dir=pointmaze_data), load(POINTMAZE, data_dir=pointmaze_data)
    assert isinstance(dataset.observations, dict)
    assert isinstance(dataset.next_observations, dict)
    np.testing.assert_array_equal(dataset.observations["observation"], single.observations)
    np.testing.assert_array_equal(dataset.next_observations["observation"], single.next_observations)
    last = np.repeat([499, 999, 1499], 500)
    for found in (dataset.observations, dataset.next_observations):
        np.testing.assert_array_equal(found["desired_goal"], np.asarray(single.observations)[last])
    at_goal = np.isin(np.arange(1500), [499, 999, 1499])
    np.testing.assert_array_equal(dataset.rewards, np.where(at_goal, 0, -1))
    np.testing.assert_array_equal(dataset.masks, ~at_goal)
    assert dataset.provenance["goals"] == "hindsight"
    assert dataset.observation_space == make_env(name).observation_space
    with pytest.raises(
        ValueError, match="is goal-conditioned, and its rewards are -1 and 0 anyway; sparse=True is for"
    ):
        load(name, data_dir=pointmaze_data, sparse=True)


def test_described_goals_are_those_of_the_environment(pointmaze_data: Path, tmp_path: Path) -> None:
    name = "pointmaze-medium-navigate-oraclerep-v0"
    dataset, env = load(name, data_dir=pointmaze_data), make_env(name)
    assert dataset.observation_space == env.observation_space
    assert isinstance(dataset.observations, dict)
    assert isinstance(dataset.next_observations, dict)
    for found in (dataset.observations, dataset.next_observations):
        np.testing.assert_array_equal(found["achieved_goal"], found["observation"])  # Both are its position.
    np.testing.assert_array_equal(dataset.observations["desired_goal"][3], dataset.observations["observation"][499])
    cube = "cube-double-play-oraclerep-v0"
    generate(cube, data_dir=tmp_path, num_episodes=1, max_episode_steps=21, progress=False)
    moved, described = load(cube, data_dir=tmp_path), make_env(cube)
    described.reset(seed=0)
    assert isinstance(moved.observations, dict)
    assert isinstance(moved.next_observations, dict)
    assert moved.observation_space == described.observation_space
    qpos = read_npz(tmp_path / "cube-double-play-v0.npz")["qpos"]
    simulator: Any = described.unwrapped.env.unwrapped
    for row in (0, 7, 20):
        simulator.set_state(qpos[row].astype(float), np.zeros(simulator._model.nv))
        found = moved.observations["achieved_goal"][row] if row < 20 else moved.next_observations["achieved_goal"][-1]
        np.testing.assert_allclose(found, simulator.compute_oracle_observation(), atol=1e-5)


def test_images_have_their_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test needs no renderer: it writes the file itself and uses another environment with the same spaces."""
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    arrays = {"observations": images, "actions": np.zeros((6, 5)), "terminals": np.arange(6) == 5}
    write_npz(tmp_path / "visual-cube-single-play-v0.npz", {**arrays, "qpos": np.zeros((6, 21))})
    space = Box(0, 255, (3, 64, 64), np.uint8)
    env: Any = make_env("cube-single-play-singletask-v0")
    env.observation_space = space
    monkeypatch.setattr(reading, "make_env", lambda *_, **__: env)
    dataset = load("visual-cube-single-play-singletask-v0", data_dir=tmp_path)
    assert dataset.observation_space == space
    np.testing.assert_array_equal(dataset.observations, images[:5].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.next_observations, images[1:].transpose(0, 3, 1, 2))
    assert dataset.observations.flags.c_contiguous


def test_discrete_actions_are_explained() -> None:
    with pytest.raises(
        ValueError, match="'powderworld-easy-play-v0' has discrete actions, but flow policies need cont"
    ):
        load("powderworld-easy-play-v0")


def test_sparse_rewards_keep_the_masks(tmp_path: Path) -> None:
    """In the first state four of nine buttons are right, and in the next one all of them."""
    name = "puzzle-3x3-play-singletask-task1-v0"
    goal = make_env(name).env.unwrapped.task_infos[0]["goal_button_states"]
    states = np.stack([np.where(np.arange(9) < 4, goal, 1 - goal), goal, goal])
    arrays = {"observations": np.zeros((3, 55)), "actions": np.zeros((3, 5)), "terminals": np.array([0, 0, 1], bool)}
    write_npz(tmp_path / "puzzle-3x3-play-v0.npz", {**arrays, "qpos": np.zeros((3, 23)), "button_states": states})
    dense, sparse = load(name, data_dir=tmp_path), load(name, data_dir=tmp_path, sparse=True)
    np.testing.assert_array_equal(dense.rewards, [-5, 0])
    np.testing.assert_array_equal(sparse.rewards, [-1, 0])
    np.testing.assert_array_equal(dense.masks, [1, 0])
    np.testing.assert_array_equal(sparse.masks, [1, 0])
    assert sparse.provenance["sparse"] is True
    assert "generated" not in sparse.provenance


@pytest.mark.parametrize(("found", "old"), [("1.1.0", True), ("1.2.0", False), ("1.10.2", False), ("2.0.0rc1", False)])
def test_an_old_ogbench_is_warned_of(
    pointmaze_data: Path, monkeypatch: pytest.MonkeyPatch, found: str, old: bool
) -> None:
    monkeypatch.setattr(versions, "version", lambda _: found)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        provenance = load(POINTMAZE, data_dir=pointmaze_data).provenance
    assert provenance["ogbench"] == found
    assert provenance["environment_reward_timing"] == f"state {'after' if old else 'before'} the step"
    messages = [str(warning.message) for warning in caught if "OGBench" in str(warning.message)]
    assert bool(messages) == old
    assert all(f"OGBench {found}: single-task environments give reward" in message for message in messages)


def test_a_large_set_that_is_not_there_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "GENERATED_DATA_DIR", tmp_path / "generated")
    message = rf"needs the 100m dataset, which .*'{tmp_path}/puzzle-4x4-play-100m-v0' has none\. .* wget .*-P '"
    with pytest.raises(FileNotFoundError, match=message):
        load("puzzle-4x4-play-100m-singletask-task4-v0", data_dir=tmp_path)


def test_shards_are_relabelled_one_by_one_and_laid_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authors' large datasets are folders of files, among them the validation files."""
    name, folder = "puzzle-3x3-play-100m-singletask-task1-v0", tmp_path / "puzzle-3x3-play-100m-v0"
    rng = np.random.default_rng(0)
    for number, suffix in ((0, ""), (1, ""), (0, "-val")):
        arrays = {
            "observations": rng.normal(size=(6, 55)).astype(np.float32),
            "actions": np.ones((6, 5), np.float32),
            "terminals": np.array([0, 0, 1, 0, 0, 1], bool),
            "qpos": np.zeros((6, 23)),
            "button_states": rng.integers(0, 2, (6, 9)),
        }
        write_npz(folder / f"puzzle-3x3-play-v0-{number:03d}{suffix}.npz", arrays)
    cache = tmp_path / "cache"
    dataset = load(name, data_dir=tmp_path, cache_dir=cache)
    shards = [
        load(name.replace("-100m", ""), data_dir=tmp_path / str(n)) for n in range(2) if copy_shard(folder, tmp_path, n)
    ]
    for key in ("observations", "next_observations", "rewards", "masks", "terminals", "actions"):
        np.testing.assert_array_equal(getattr(dataset, key), np.concatenate([getattr(shard, key) for shard in shards]))
    assert dataset.actions.max() < 1
    assert len(np.unique(dataset.rewards)) > 1
    assert load(name, data_dir=folder, cache_dir=cache, split="val").provenance["file"].endswith("-000-val.npz")

    def fail(*_: Any) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(loading.Reader, "__call__", fail)
    assert load(name, data_dir=folder, cache_dir=cache).fingerprint == dataset.fingerprint
    os.utime(folder / "puzzle-3x3-play-v0-001.npz", ns=(0, 0))
    with pytest.raises(AssertionError, match="read again"):
        load(name, data_dir=folder, cache_dir=cache)


def copy_shard(folder: Path, target: Path, number: int) -> Path:
    (target / str(number)).mkdir()
    shard = folder / f"puzzle-3x3-play-v0-{number:03d}.npz"
    return Path(shutil.copy(shard, target / str(number) / "puzzle-3x3-play-v0.npz"))


def test_laying_out_shards_needs_the_memory_of_less_than_two(tmp_path: Path) -> None:
    folder, rows = tmp_path / "puzzle-4x4-play-100m-v0", 40_040
    arrays = {
        "observations": np.zeros((rows, 83), np.float32),
        "actions": np.zeros((rows, 5), np.float32),
        "terminals": np.arange(rows) % 1001 == 1000,
        "qpos": np.zeros((rows, 38), np.float32),
        "qvel": np.zeros((rows, 36), np.float32),
        "button_states": np.zeros((rows, 16), np.int64),
    }
    for number in range(3):
        write_npz(folder / f"puzzle-4x4-play-v0-{number:03d}.npz", arrays)
    name = "puzzle-4x4-play-100m-singletask-task4-v0"
    # The reader makes an environment, whose memory is not part of the measurement.
    reader = reading.Reader(name, parse_name(name), sparse=False, compact=False, provenance={})
    tracemalloc.start()
    try:
        dataset = from_shards({"name": name}, sorted(folder.iterdir()), reader, "memmap", tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    shard = sum(array.nbytes for array in dataset.arrays().values()) / 3
    assert len(dataset) == 120_000
    assert peak < 2 * shard
