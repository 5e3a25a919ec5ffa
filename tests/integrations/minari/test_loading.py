"""Loaded datasets equal the recorded episodes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Text
from minari_worlds import change_metadata

from flowpolicies.artifacts import ArtifactError
from flowpolicies.cli import main
from flowpolicies.data import DataFault, load_dataset, normalized_score
from flowpolicies_minari import load, loading
from flowpolicies_minari.observations import ObservationConverter

ENVS = ["Pendulum-v1", "MinariWorld-v0", "MinariDictWorld-v0", "MinariTupleWorld-v0", "MinariGoalWorld-v0"]


def flat(env: str, observations: list[Any]) -> dict[str, np.ndarray]:
    """The expected flat arrays of recorded observations, computed separately for each environment."""
    if env == "MinariDictWorld-v0":
        return {
            "goal/position": np.stack([one["goal"]["position"] for one in observations]).astype(np.float32),
            "goal/near": np.stack([one["goal"]["near"] for one in observations]).astype(np.float32),
            "place": np.stack([one["place"] for one in observations]),
            "phase": np.stack([[float(one["phase"] == k) for k in (1, 2, 3)] for one in observations]),
        }
    if env == "MinariTupleWorld-v0":
        numbers = np.stack([one[0] for one in observations]).astype(np.float32)
        return {"0": numbers, "1": np.stack([one[1].transpose(2, 0, 1) for one in observations])}
    return {"": np.stack(observations).astype(np.float32)}


@pytest.mark.parametrize("env", ENVS)
def test_every_episode_is_what_the_environment_did(record: Any, train: Any, env: str) -> None:
    witnessed = record("worlds/data-v0", env, 4)
    dataset = load_dataset("minari:worlds/data-v0")
    starts = np.append(0, dataset.episode_ends + 1)
    assert len(dataset) == starts[-1] == sum(len(episode["actions"]) for episode in witnessed)
    assert dataset.num_episodes == len(witnessed) == 4
    for episode, start, stop in zip(witnessed, starts[:-1], starts[1:], strict=True):
        rewards, terminations, truncations = (np.array(column) for column in zip(*episode["outcomes"], strict=True))
        np.testing.assert_array_equal(dataset.actions[start:stop], np.stack(episode["actions"]))
        np.testing.assert_array_equal(dataset.rewards[start:stop], rewards.astype(np.float32))
        np.testing.assert_array_equal(dataset.masks[start:stop], 1 - terminations)
        np.testing.assert_array_equal(dataset.terminals[start:stop], terminations | truncations)
        for key, expected in flat(env, episode["observations"]).items():
            now = dataset.observations[key] if key else dataset.observations
            after = dataset.next_observations[key] if key else dataset.next_observations
            np.testing.assert_array_equal(now[start:stop], expected[:-1])
            np.testing.assert_array_equal(after[start:stop], expected[1:])
            assert now.dtype == expected.dtype or key == "phase"
    train(dataset)


def test_the_collected_worlds_have_both_kinds_of_end(record: Any) -> None:
    record("w-v0", "MinariWorld-v0", 6)
    dataset = load("w-v0")
    ends = dataset.masks[dataset.episode_ends]
    assert set(ends) == {0, 1}
    assert len(set(np.diff(dataset.episode_ends))) > 1


def test_provenance_says_where_the_data_are_from(record: Any, root: Path) -> None:
    record("a/b/w-v3", "MinariWorld-v0", author="Ada", algorithm_name="random", description="x", requirements=["numpy"])
    provenance = load("a/b/w-v3").provenance
    assert provenance["name"] == "a/b/w-v3"
    assert provenance["source"] == "minari"
    assert provenance["minari"] == provenance["written_by_minari"] == minari.__version__
    assert (provenance["env"], provenance["dataset_version"]) == ("MinariWorld-v0", 3)
    assert (provenance["author"], provenance["algorithm_name"]) == (["Ada"], "random")
    assert provenance["requirements"] == ["numpy"]
    assert list(provenance["sha256"]) == ["main_data.hdf5", "metadata.json"]


def test_another_folder(record: Any, root: Path, tmp_path: Path) -> None:
    record("w-v0", "MinariWorld-v0")
    root.rename(tmp_path / "elsewhere")
    assert load("w-v0", data_dir=tmp_path / "elsewhere").num_episodes == 3
    with pytest.raises(FileNotFoundError):
        load("w-v0", download=False)


def test_data_without_an_environment(write: Any, episode: Any, train: Any) -> None:
    episodes = [episode(4, 0), episode(1, 1), episode(6, 2)]
    write("own-v0", episodes)
    dataset = load("own-v0")
    assert dataset.provenance["env"] is None
    expected = np.concatenate([one["observations"][1:] for one in episodes])
    np.testing.assert_array_equal(dataset.next_observations, expected)
    np.testing.assert_array_equal(dataset.episode_ends, [3, 4, 10])
    train(dataset)


def test_an_episode_without_its_last_observation_is_named(write: Any, episode: Any) -> None:
    write("short-v0", [episode(4), episode(4, observations=np.zeros((4, 2), np.float32))])
    with pytest.raises(DataFault, match=r"episode 1 of .*'short-v0' has 4 observations for 4 steps; 5 are needed"):
        load("short-v0")


def test_a_dict_that_lacks_it_in_one_key_is_named(write: Any, episode: Any) -> None:
    space = Dict({"a": Box(-9, 9, (1,)), "b": Box(-9, 9, (2,))})
    observations = {"a": np.zeros((5, 1), np.float32), "b": np.zeros((4, 2), np.float32)}
    write("short-v0", [episode(4, observations=observations)], space)
    with pytest.raises(ValueError, match=r"episode 0 .* has 4 observations 'b' for 4 steps"):
        load("short-v0")


@pytest.mark.parametrize("key", ["actions", "terminations", "truncations"])
def test_other_lengths_are_named(write: Any, episode: Any, key: str) -> None:
    good = episode(4)
    write("odd-v0", [good, {**good, key: good[key][:3]}])
    with pytest.raises(DataFault, match=rf"episode 1 of .* has 4 rewards, but 3 {key}\."):
        load("odd-v0")


@pytest.mark.parametrize(
    ("key", "column", "message"),
    [
        ("actions", np.full((4, 1), b"0.123"), r": actions are \|S5, not numbers\. Convert"),
        ("rewards", np.full(4, b"0.123"), r": rewards are \|S5, not numbers"),
        ("terminations", np.array([0, 0.5, 0, 0]), r": terminations must be 0 or 1, but row 1 has 0\.5"),
        (
            "observations",
            np.full((5, 2), b"0.123"),
            r": observations do not fit .* \(observation: values are \|S5, not n",
        ),
    ],
)
def test_what_are_no_numbers_is_refused(
    write: Any, episode: Any, root: Path, key: str, column: Any, message: str
) -> None:
    write("odd-v0", [episode(4), episode(4)])
    with h5py.File(root / "odd-v0" / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1"][key]
        file["episode_1"][key] = column
    with pytest.raises(DataFault, match="episode 1 of Minari dataset 'odd-v0'" + message):
        load("odd-v0")


def test_images_that_are_no_bytes_are_refused() -> None:
    """Floats in [0, 1] would all become 0 as bytes."""
    converter = ObservationConverter(Dict({"eye": Box(0, 255, (4, 4, 3), np.uint8)}), "x")
    with pytest.raises(ValueError, match=r"observation 'eye': values are float64, but those of its space are bytes"):
        converter.batch({"eye": np.full((2, 4, 4, 3), 0.5)})


def test_the_check_takes_a_fault_for_a_fault(write: Any, episode: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write("short-v0", [episode(4, observations=np.zeros((4, 2), np.float32))])
    assert main(["data", "check", "minari:short-v0"]) == 1
    assert "FAULT [loading] the data cannot be loaded:" in (out := capsys.readouterr().out)
    assert "episode 0 of" in out
    assert main(["data", "check", "minari:short-v0,reward_convention=mine"]) == 2


def test_nan_names_episode_and_step(write: Any, episode: Any) -> None:
    observations = np.zeros((5, 2), np.float32)
    observations[3, 1] = np.nan
    write("nan-v0", [episode(4), episode(4, observations=observations)])
    with pytest.raises(ValueError, match=r"episode 1 of .*: observations are NaN or infinite at step 3\."):
        load("nan-v0")


def test_a_termination_inside_an_episode_is_a_mask(write: Any, episode: Any) -> None:
    inside = np.array([False, True, False, False])
    write("inside-v0", [episode(4, terminations=inside), episode(3)])
    with pytest.warns(UserWarning, match="1 terminations are inside episodes that continue; masks are 0 there"):
        dataset = load("inside-v0")
    np.testing.assert_array_equal(dataset.masks, [1, 0, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(dataset.terminals, [0, 0, 0, 1, 0, 0, 1])


def test_a_truncation_inside_an_episode_is_refused(write: Any, episode: Any) -> None:
    write("inside-v0", [episode(3), episode(4, truncations=np.array([False, True, False, True]))])
    with pytest.raises(ValueError, match=r"episode 1 .* is truncated at step 1 of 4 but continues"):
        load("inside-v0")


def test_an_episode_without_flags_ends_where_it_ends(write: Any, episode: Any) -> None:
    write("flagless-v0", [episode(3, truncations=np.zeros(3, bool)), episode(2)])
    np.testing.assert_array_equal(load("flagless-v0").terminals, [0, 0, 1, 0, 1])


@pytest.mark.parametrize("space", [Text(5), Dict({"a": Box(0, 1), "mission": Text(5)})])
def test_text_is_refused(write: Any, episode: Any, space: Any) -> None:
    text = ["hello"] * 5
    observations = text if isinstance(space, Text) else {"a": np.zeros((5, 1), np.float32), "mission": text}
    write("text-v0", [episode(4, observations=observations)], space)
    which = "the observation" if isinstance(space, Text) else "observation 'mission'"
    with pytest.raises(ValueError, match=rf"'text-v0': {which} is Text.* which cannot be used\. Box, Discrete"):
        load("text-v0")


def test_keys_that_become_equal_are_refused() -> None:
    with pytest.raises(ValueError, match="ambiguous"):
        ObservationConverter(Dict({"a": Dict({"b": Box(0, 1)}), "a/b": Box(0, 1)}), "x")


def test_discrete_observations_become_one_hot(write: Any, episode: Any) -> None:
    write("cells-v0", [episode(4, observations=np.array([2, 3, 4, 2, 3]))], Discrete(3, start=2))
    dataset = load("cells-v0")
    np.testing.assert_array_equal(dataset.observations, np.eye(3)[[0, 1, 2, 0]])
    assert dataset.observation_space == Box(0, 1, (3,), np.float32)
    write("wrong-v0", [episode(4, observations=np.array([2, 3, 5, 2, 3]))], Discrete(3, start=2))
    with pytest.raises(ValueError, match="episode 0 of Minari dataset 'wrong-v0': observations do not fit"):
        load("wrong-v0")


def test_discrete_actions_are_refused(write: Any, episode: Any) -> None:
    write("buttons-v0", [episode(4, actions=np.zeros(4, np.int64))], actions=Discrete(2))
    with pytest.raises(ValueError, match=r"'buttons-v0' has the action space Discrete\(2\), but flow policies need"):
        load("buttons-v0")


def test_actions_outside_their_bounds(write: Any, episode: Any) -> None:
    actions = np.array([[0.5], [1.5], [-1.0], [1.0]], np.float32)
    write("wild-v0", [episode(4, actions=actions)])
    with pytest.raises(ValueError, match="1 of 4 actions lie outside the bounds"):
        load("wild-v0")
    clipped = load("wild-v0", clip_actions=True)
    np.testing.assert_allclose(clipped.actions[:, 0], [0.5, 1 - 1e-5, -1 + 1e-5, 1 - 1e-5], rtol=1e-7)
    assert clipped.provenance["action_margin"] == 1e-5


def test_images_are_bytes(record: Any) -> None:
    witnessed = record("raw-v0", "MinariImageWorld-v0", 2, jpeg_encoding=False)
    dataset = load("raw-v0")
    seen = np.concatenate([np.stack(one["observations"][:-1]) for one in witnessed])
    np.testing.assert_array_equal(dataset.observations, seen.transpose(0, 3, 1, 2))
    assert dataset.observation_space == Box(0, 255, (3, 40, 33), np.uint8)
    assert dataset.observations.dtype == np.uint8
    assert dataset.provenance["jpeg_encoding"] is False


def test_jpeg_is_decoded_and_said(record: Any) -> None:
    witnessed = record("jpeg-v0", "MinariImageWorld-v0", 1)
    dataset = load("jpeg-v0")
    assert dataset.observations.shape[1:] == (3, 40, 33)
    assert not np.array_equal(dataset.observations[0], witnessed[0]["observations"][0].transpose(2, 0, 1))
    assert dataset.provenance["jpeg_encoding"] is True


def test_images_of_versions_before_jpeg(record: Any, root: Path) -> None:
    witnessed = record("old-v0", "MinariImageWorld-v0", 1, jpeg_encoding=False)
    change_metadata(root / "old-v0", jpeg_encoding=None)
    np.testing.assert_array_equal(load("old-v0").observations[0], witnessed[0]["observations"][0].transpose(2, 0, 1))


def test_antmaze_convention(record: Any) -> None:
    witnessed = record("D4RL/antmaze/goal-v0", "MinariGoalWorld-v0", 3)
    rewards = np.array([outcome[0] for episode in witnessed for outcome in episode["outcomes"]])
    assert set(rewards) == {0, 1}
    dataset = load("D4RL/antmaze/goal-v0", reward_convention="d4rl-antmaze")
    np.testing.assert_array_equal(dataset.rewards, rewards - 1)
    np.testing.assert_array_equal(dataset.masks, 1 - rewards)
    assert dataset.num_episodes == 3  # The trajectory continues after the goal.
    stored = load("D4RL/antmaze/goal-v0")
    np.testing.assert_array_equal(stored.rewards, rewards)
    assert stored.masks.all()


def test_conventions_are_checked(record: Any) -> None:
    record("w-v0", "MinariWorld-v0")
    with pytest.raises(ValueError, match=r"unknown reward convention 'antmaze' \(known: stored, d4rl-antmaze\)"):
        load("w-v0", reward_convention="antmaze")
    with pytest.raises(ValueError, match="is for rewards of 0 and 1, but these range from"):
        load("w-v0", reward_convention="d4rl-antmaze")


def test_normalized_score(write: Any, episode: Any, root: Path) -> None:
    write("scored-v0", [episode(4) | {"rewards": np.array([0.0, 0.0, 1.0, 1.0])}])
    with pytest.raises(ValueError, match="dataset 'scored-v0' has no reference scores"):
        normalized_score(load("scored-v0"), 3.0)
    change_metadata(root / "scored-v0", ref_min_score=-10.0, ref_max_score=30.0)
    with pytest.raises(ArtifactError, match=r"\['metadata.json'\] in .* changed"):
        load("scored-v0")
    (root / "scored-v0" / "flowpolicies.json").unlink()
    dataset = load("scored-v0")
    assert normalized_score(dataset, 10.0) == 50
    changed = load("scored-v0", reward_convention="d4rl-antmaze")
    with pytest.raises(ValueError, match="has no reference scores"):  # They belong to the stored rewards.
        normalized_score(changed, 10.0)
    np.testing.assert_array_equal(normalized_score(dataset, [-10.0, 30.0]), [0, 100])


def test_gymnasium_is_not_asked_for_environments(record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    record("w-v0", "MinariWorld-v0")
    monkeypatch.setattr(gym, "make", None)
    assert load("w-v0").num_episodes == 3


def test_data_laid_out_as_files_are_those_in_memory(
    record: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, cache = "worlds/mapped-v0", tmp_path / "cache"
    record(name, "MinariDictWorld-v0")
    options: dict[str, Any] = {"storage": "memmap", "cache_dir": cache}
    expected, mapped = load(name), load_dataset(f"minari:{name}", **options)
    assert isinstance(mapped.actions, np.memmap)
    assert mapped.fingerprint == expected.fingerprint
    assert mapped.provenance["sha256"] == expected.provenance["sha256"]
    compact = load_dataset(f"minari:{name}", compact=True, **options)
    assert compact.final_observations is not None
    assert compact.fingerprint == expected.fingerprint
    assert "action_margin" in load(name, clip_actions=True, **options).provenance  # This has its own folder.
    with monkeypatch.context() as patch:
        patch.setattr(loading, "_read", None)  # The dataset must not be read again.
        assert load(name, **options).fingerprint == expected.fingerprint
    data = root / name / "data" / "main_data.hdf5"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ValueError, match="are not those that were first read here"):
        load(name, **options)


def test_episodes_without_steps_are_skipped(write: Any, episode: Any, root: Path) -> None:
    write("start-v0", [episode(2), episode(1), episode(3)])
    with h5py.File(root / "start-v0" / "data" / "main_data.hdf5", "a") as file:
        for key in ("actions", "rewards", "terminations", "truncations"):
            file["episode_1"][key].resize(0, axis=0)
        file["episode_1"]["observations"].resize(1, axis=0)
    change_metadata(root / "start-v0", total_steps=5)
    np.testing.assert_array_equal(load("start-v0").episode_ends, [1, 4])


def test_a_stale_specification_does_not_matter_to_the_data(record: Any, root: Path) -> None:
    record("w-v0", "MinariWorld-v0")
    change_metadata(
        root / "w-v0", env_spec='{"id":"Gone-v7","entry_point":"gone:Gone","additional_wrappers":[],"autoreset":true}'
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = load("w-v0")
    assert dataset.provenance["env"] == "Gone-v7"
    with pytest.raises(ValueError, match="issue occurred when trying to make"):  # Minari itself cannot.
        minari.load_dataset("w-v0")
