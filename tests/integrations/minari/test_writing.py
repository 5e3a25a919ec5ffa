from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from flowpolicies.data import TransitionDataset, load_dataset, make_env, save_dataset
from flowpolicies_minari import load, to_minari


def closed(episodes: tuple[int, ...] = (3, 1, 4), seed: int = 0, **options: Any) -> TransitionDataset:
    """A dataset of random trajectories, some of which terminate."""
    rng = np.random.default_rng(seed)
    streams = [rng.normal(size=(steps + 1, 2)).astype(np.float32) for steps in episodes]
    n = sum(episodes)
    terminals = np.zeros(n)
    terminals[np.cumsum(episodes) - 1] = 1
    masks = 1 - terminals * (np.arange(n) % 2)
    return TransitionDataset.from_arrays(
        **{
            "observations": np.concatenate([stream[:-1] for stream in streams]),
            "next_observations": np.concatenate([stream[1:] for stream in streams]),
            "actions": rng.uniform(-1, 1, (n, 1)),
            "rewards": rng.normal(size=n),
            "masks": masks,
            "terminals": terminals,
            "name": "mine",
            **options,
        }
    )


@pytest.mark.parametrize("env", ["Pendulum-v1", "MinariDictWorld-v0", "MinariTupleWorld-v0", "MinariImageWorld-v0"])
def test_round_trip(record: Any, env: str) -> None:
    record("first-v0", env, 3)
    dataset = load("first-v0")
    to_minari(dataset, "space/second-v1", env=env)
    again = load("space/second-v1")
    assert again.fingerprint == dataset.fingerprint
    assert again.observation_space == dataset.observation_space
    assert again.action_space == dataset.action_space
    assert again.provenance["collected"] == dataset.provenance


def test_arrays_round_trip_and_minari_reads_them() -> None:
    dataset = closed()
    path = to_minari(dataset, "mine-v0", author="Ada", description="x", algorithm_name="dice", code_permalink="y")
    again = load("mine-v0")
    assert again.fingerprint == dataset.fingerprint
    theirs = minari.load_dataset("mine-v0")
    assert str(path / "data") == theirs.spec.data_path
    assert (theirs.total_episodes, theirs.total_steps) == (3, 8)
    last = list(theirs.iterate_episodes())[2]
    np.testing.assert_array_equal(last.observations[:-1], dataset.observations[4:])
    np.testing.assert_array_equal(last.observations[1:], dataset.next_observations[4:])
    np.testing.assert_array_equal(last.actions, dataset.actions[4:])
    ends = [(bool(one.terminations[-1]), bool(one.truncations[-1])) for one in theirs.iterate_episodes()]
    assert ends == [(bool(mask == 0), bool(mask == 1)) for mask in dataset.masks[dataset.episode_ends]]
    assert theirs.storage.metadata["author"] == {"Ada"}
    assert "mine-v0" in minari.list_local_datasets()


def test_masks_inside_trajectories_survive() -> None:
    masks = np.array([1, 0, 1, 1, 0, 1, 1, 0])
    dataset = closed(masks=masks)
    to_minari(dataset, "mine-v0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # The metadata say that they were masks.
        again = load("mine-v0")
    assert again.fingerprint == dataset.fingerprint


def test_nested_keys_survive() -> None:
    plain = closed()
    now = {"a/b": plain.observations, "a/c": plain.observations[:, :1], "d": plain.observations}
    after = {"a/b": plain.next_observations, "a/c": plain.next_observations[:, :1], "d": plain.next_observations}
    dataset = closed(observations=now, next_observations=after)
    to_minari(dataset, "mine-v0")
    space = minari.load_dataset("mine-v0").observation_space
    assert isinstance(space["a"], Dict)
    assert load("mine-v0").fingerprint == dataset.fingerprint


def test_images_are_not_compressed() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 40, 33), dtype=np.uint8)
    dataset = closed((8,), observations=images[:-1], next_observations=images[1:])
    to_minari(dataset, "mine-v0")
    assert load("mine-v0").fingerprint == dataset.fingerprint


def test_trajectories_with_gaps_are_refused(root: Path) -> None:
    plain = closed()
    after = np.array(plain.next_observations)
    after[5, 1] += 1
    message = r"trajectory 2 of dataset 'mine' has a gap: the next observation of step 1 is not the observation of the"
    with pytest.raises(ValueError, match=message):
        to_minari(closed(next_observations=after), "mine-v0")
    assert list(root.glob("**/*")) == []
    after = np.array(plain.next_observations)
    after[3] += 1  # The last next observation of a trajectory has no row after it.
    to_minari(closed(next_observations=after), "mine-v0")


def test_an_id_that_is_taken() -> None:
    to_minari(closed(seed=0), "mine-v0")
    with pytest.raises(FileExistsError, match=r"Minari dataset 'mine-v0' exists in .* overwrite=True \(--overwrite\)"):
        to_minari(closed(seed=1), "mine-v0")
    assert load("mine-v0").fingerprint == closed(seed=0).fingerprint
    to_minari(closed(seed=1), "mine-v0", overwrite=True)
    assert load("mine-v0").fingerprint == closed(seed=1).fingerprint


def test_a_failure_leaves_everything_as_it_was(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minari.dataset.minari_storage import MinariStorage

    to_minari(closed(seed=0), "mine-v0")
    before = sorted(root.glob("**/*"))

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(MinariStorage, "update_metadata", fail)
    for name, overwrite in (("mine-v0", True), ("other/new-v0", False)):
        with pytest.raises(OSError, match="disk full"):
            to_minari(closed(seed=1), name, overwrite=overwrite)
    assert sorted(root.glob("**/*")) == before
    assert load("mine-v0").fingerprint == closed(seed=0).fingerprint


def test_the_second_of_two_writers_does_not_replace_the_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minari.dataset.minari_storage import MinariStorage

    update = MinariStorage.update_metadata

    def overtaken(self: Any, metadata: Any) -> None:
        monkeypatch.setattr(MinariStorage, "update_metadata", update)
        to_minari(closed(seed=1), "mine-v0")
        update(self, metadata)

    monkeypatch.setattr(MinariStorage, "update_metadata", overtaken)
    with pytest.raises(FileExistsError, match="'mine-v0' exists"):
        to_minari(closed(seed=0), "mine-v0")
    assert load("mine-v0").fingerprint == closed(seed=1).fingerprint
    assert [path.name for path in root.iterdir()] == ["mine-v0"]


@pytest.mark.parametrize("name", ["mine", "a b-v0", "../x-v0"])
def test_other_names_are_explained(name: str, root: Path) -> None:
    with pytest.raises(ValueError, match="is not a Minari dataset id"):
        to_minari(closed(), name)


def test_another_folder(tmp_path: Path, root: Path) -> None:
    path = to_minari(closed(), "deep/er/mine-v0", data_dir=tmp_path / "other")
    assert path == tmp_path / "other/deep/er/mine-v0"
    assert load("deep/er/mine-v0", data_dir=tmp_path / "other").num_episodes == 3
    assert not root.exists()
    assert (tmp_path / "other/deep/er/namespace_metadata.json").is_file()


@pytest.mark.parametrize("kind", ["id", "spec", "env"])
def test_the_environment_comes_along(record: Any, kind: str) -> None:
    record("first-v0", "MinariWorld-v0", 1)
    env: Any = {
        "id": "MinariWorld-v0",
        "spec": gym.spec("MinariWorld-v0"),
        "env": gym.make("MinariWorld-v0", scale=2.0),
    }[kind]
    to_minari(load("first-v0"), "second-v0", env=env)
    made = make_env("minari:second-v0")
    assert made.unwrapped.scale == (2.0 if kind == "env" else 1.0)
    assert load("second-v0").provenance["env"] == "MinariWorld-v0"
    minari.load_dataset("second-v0").recover_environment()


def test_addresses_come_along(record: Any) -> None:
    record("first-v0", "MinariDictWorld-v0", 1)
    dataset = load("first-v0")
    to_minari(dataset, "first-v0", env="minari:first-v0", overwrite=True)
    to_minari(dataset, "second-v0", env="minari:first-v0")
    assert make_env("minari:first-v0").observation_space == dataset.observation_space


def test_addresses_of_other_sources_come_along() -> None:
    pytest.importorskip("ogbench")
    address = "ogbench:pointmaze-medium-navigate-singletask-v0"
    space = make_env(address).observation_space
    own = closed(observation_space=space, action_space=Box(-1, 1, (2,)), actions=np.zeros((8, 2)))
    to_minari(own, "maze-v0", env=address)
    assert type(make_env("minari:maze-v0").env).__name__ == "OGBenchEnv"
    assert load("maze-v0").provenance["env"] == address


def test_an_environment_that_cannot_be_stored_as_json() -> None:
    gym.register("Local-v0", lambda: gym.make("MinariWorld-v0"))
    try:
        with pytest.warns(UserWarning, match="specification of environment 'Local-v0' cannot be stored as JSON"):
            to_minari(closed(), "mine-v0", env=gym.spec("Local-v0"))
        to_minari(closed(), "named-v0", env="Local-v0")
    finally:
        del gym.registry["Local-v0"]
    assert load("mine-v0").provenance["env"] is None
    assert load("named-v0").provenance["env"] == "Local-v0"


def test_addresses_write_minari_datasets(tmp_path: Path) -> None:
    dataset = closed()
    path = save_dataset(dataset, "minari:mine-v0", author="Ada")
    assert path.name == "mine-v0"
    assert load_dataset("minari:mine-v0").provenance["author"] == ["Ada"]
    with pytest.raises(FileExistsError, match="exists in"):
        save_dataset(dataset, "minari:mine-v0")
    save_dataset(dataset, "minari:mine-v0", overwrite=True)
