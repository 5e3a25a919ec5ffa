"""Selection of trajectories, in memory and in files, and copies of datasets."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from flowpolicies import FQL
from flowpolicies.data import TransitionDataset, load_dataset, open_memmap, write_memmap
from flowpolicies.data.dataset.rows import SelectedRows

LENGTHS = (4, 1, 6, 3, 5, 2)
KINDS = [(storage, compact) for storage in ("ram", "memmap") for compact in (False, True)]


def make(storage: str, compact: bool, tmp_path: Path, **provenance: Any) -> TransitionDataset:
    """Six trajectories; the rewards of number i are i, and the odd ones terminate."""
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": {"x": rng.normal(size=(length + 1, 2)), "y": rng.normal(size=(length + 1, 1))},
            "actions": rng.uniform(-1, 1, (length, 2)),
            "rewards": np.full(length, number),
            "terminations": number % 2 == 1,
        }
        for number, length in enumerate(LENGTHS)
    ]
    dataset = TransitionDataset.from_episodes(episodes, name="arm", provenance=provenance)
    dataset = dataset.compact() if compact else dataset
    if storage == "ram":
        return dataset
    return open_memmap(write_memmap(tmp_path / "files", [dataset.select([0, 1, 2]), dataset.select([3, 4, 5])]))


def rows_of(dataset: TransitionDataset, numbers: list[int]) -> list[int]:
    return [row for i in numbers for row in range(dataset.episode_starts[i], dataset.episode_ends[i] + 1)]


def check_same(selected: TransitionDataset, dataset: TransitionDataset, numbers: list[int]) -> None:
    rows = rows_of(dataset, numbers)
    for key, array in dataset.arrays().items():
        np.testing.assert_array_equal(selected.arrays()[key], np.asarray(array)[rows], key)
    assert selected.episode_lengths.tolist() == [LENGTHS[i] for i in numbers]
    assert selected.terminals[selected.episode_ends].all()


@pytest.mark.parametrize(("storage", "compact"), KINDS)
def test_selected_trajectories_are_those_of_the_dataset(storage: str, compact: bool, tmp_path: Path) -> None:
    dataset = make(storage, compact, tmp_path)
    for given, numbers in (
        ([2, 4], [2, 4]),
        ([4, 0], [4, 0]),
        (slice(1, None, 2), [1, 3, 5]),
        (np.array([True, False, False, False, False, True]), [0, 5]),
        (-1, [5]),
    ):
        selected = dataset.select(given)
        check_same(selected, dataset, numbers)
        assert (selected.final_observations is not None) is compact
        in_files = isinstance(selected.observations["x"], SelectedRows)
        assert in_files is (storage == "memmap")
        assert selected.fingerprint == TransitionDataset.from_arrays(**selected_arrays(selected)).fingerprint
    check_same(dataset.select([5, 2, 0]).select([1, 2]), dataset, [2, 0])


def selected_arrays(dataset: TransitionDataset) -> dict[str, Any]:
    fields = ("actions", "rewards", "masks", "terminals")
    trees = {
        key: {k: np.asarray(v) for k, v in getattr(dataset, key).items()}
        for key in ("observations", "next_observations")
    }
    return {**trees, **{key: getattr(dataset, key) for key in fields}, "observation_space": dataset.observation_space}


@pytest.mark.parametrize(
    ("conditions", "numbers"),
    [
        ({"min_length": 4}, [0, 2, 4]),
        ({"max_length": 2}, [1, 5]),
        ({"min_length": 3, "max_length": 4}, [0, 3]),
        ({"min_return": 10}, [2, 4, 5]),
        ({"max_return": 1}, [0, 1]),
        ({"terminated": True}, [1, 3, 5]),
        ({"terminated": False, "min_length": 5}, [2, 4]),
        ({"where": lambda episode: episode.index % 3 == 0 and episode.length == len(episode.actions)}, [0, 3]),
        ({"where": lambda episode: episode.total_reward == 9 and episode.observations["x"].shape == (3, 2)}, [3]),
        ({}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_conditions(conditions: dict[str, Any], numbers: list[int], tmp_path: Path) -> None:
    for storage, compact in KINDS:
        dataset = make(storage, compact, tmp_path / f"{storage}{compact}")
        assert dataset.episodes(**conditions).tolist() == numbers
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            check_same(dataset.filter(**conditions), dataset, numbers)
        assert len(said) == (len(numbers) < 6)


def test_what_is_dropped_is_said_and_recorded(tmp_path: Path) -> None:
    dataset = make("ram", False, tmp_path)
    message = r"dataset 'arm': min_length=4, max_return=12 drops 4 of 6 trajectories, which have 11 of 21 transitions\."
    with pytest.warns(UserWarning, match=message):
        selected = dataset.filter(min_length=4, max_return=12)
    (entry,) = selected.provenance["selections"]
    assert entry.pop("sha256_of_numbers")
    assert entry == {
        "by": {"min_length": 4, "max_return": 12},
        "episodes": 2,
        "of_episodes": 6,
        "transitions": 10,
        "of_transitions": 21,
    }
    json.dumps(selected.select([1]).provenance)
    assert len(selected.select([1]).provenance["selections"]) == 2
    assert "selections" not in dataset.provenance


def test_wrong_selections_are_explained(tmp_path: Path) -> None:
    dataset = make("ram", False, tmp_path)
    with pytest.raises(
        ValueError, match=r"none of its 6 trajectories meets min_length=7 \(lengths from 1 to 6, returns"
    ):
        dataset.filter(min_length=7)
    with pytest.raises(ValueError, match="no trajectory is selected"):
        dataset.select([])
    with pytest.raises(ValueError, match="a trajectory is selected twice"):
        dataset.select([1, 1])
    with pytest.raises(IndexError):
        dataset.select([6])


def test_success_needs_a_source_whose_masks_mark_goals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not say that a mask of 0 marks a goal .* Select by terminated="):
        make("ram", False, tmp_path).filter(success=True)
    dataset = make("ram", False, tmp_path, reward_timing="state before the step")
    assert dataset.episodes(success=True).tolist() == [1, 3, 5]
    assert dataset.episodes(success=False).tolist() == [0, 2, 4]


def test_shards_of_a_selection(tmp_path: Path) -> None:
    dataset = make("memmap", False, tmp_path)
    assert dataset.provenance["shard_ends"] == [11, 21]
    assert dataset.select([0, 2, 3]).provenance["shard_ends"] == [10, 13]
    assert dataset.select([4, 5]).provenance["shard_ends"] == [7]  # The first shard is empty.
    assert "shard_ends" not in dataset.select([4, 0]).provenance


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("compact", [False, True])
def test_batches_of_a_selection_in_files_are_those_in_memory(horizon: int, compact: bool, tmp_path: Path) -> None:
    batches = []
    for storage in ("ram", "memmap"):
        selected = make(storage, compact, tmp_path / storage).select(
            [4, 2, 0, 3]
        )  # Windows may not run on in the file.
        model = FQL(
            dataset=selected, horizon=horizon, actor_hidden_dims=(8,), value_hidden_dims=(8,), seed=0, device="cpu",
            batch_size=256,
        )  # fmt: skip
        batches.append(model.transitions.sample(256))
    assert len(batches[0].observations) == 256
    for name in ("observations", "actions", "rewards", "next_observations"):
        np.testing.assert_array_equal(getattr(batches[0], name), getattr(batches[1], name), name)


def test_a_selection_can_be_written(tmp_path: Path) -> None:
    for storage, compact in KINDS:
        selected = make(storage, compact, tmp_path / f"{storage}{compact}").select([2, 0])
        again = TransitionDataset.load(selected.save(tmp_path / "data.npz"))
        assert again.fingerprint == selected.fingerprint
        mapped = open_memmap(write_memmap(tmp_path / "again", selected, overwrite=True))
        assert mapped.fingerprint == selected.fingerprint


def test_the_error_about_short_episodes_names_ways_that_work(tmp_path: Path) -> None:
    dataset = make("ram", False, tmp_path)
    options: dict[str, Any] = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,), "device": "cpu", "horizon": 3}
    with pytest.raises(
        ValueError, match=r"filter\(min_length=3\), load_dataset\(address, min_length=3\) or --min-length 3"
    ):
        FQL(dataset=dataset, **options)
    path = dataset.save(tmp_path / "data.npz")
    for make_dataset in (
        lambda: dataset.filter(min_length=3),
        lambda: load_dataset(path, min_length=3),
        lambda: load_dataset(f"npz:{path},min_length=3"),
        lambda: load_dataset(f"npz:{path},min_length=3,storage=memmap,compact=true,cache_dir={tmp_path}/cache"),
    ):
        with pytest.warns(UserWarning, match="min_length=3 drops 2 of 6 trajectories, which have 3 of 21 transitions"):
            chosen = make_dataset()
        FQL(dataset=chosen, **options).learn_offline(1)


COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda dataset: pickle.loads(pickle.dumps(dataset))]


@pytest.mark.parametrize("make_copy", COPIES)
@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize(("storage", "compact"), KINDS)
def test_copies_are_complete_and_share_nothing_that_can_change(
    storage: str, compact: bool, selected: bool, make_copy: Callable[[Any], Any], tmp_path: Path
) -> None:
    dataset = make(storage, compact, tmp_path, notes=["a"])
    dataset = dataset.select([2, 0]) if selected else dataset
    dataset.action_space.seed(0)
    twin = make_copy(dataset)
    assert twin.fingerprint == dataset.fingerprint
    assert (twin.provenance, twin.observation_space, twin.action_space) == (
        dataset.provenance,
        dataset.observation_space,
        dataset.action_space,
    )
    assert twin.episode_ends.tolist() == dataset.episode_ends.tolist()
    for key, array in dataset.stored().items():
        assert type(twin.stored()[key]) is type(array)
        if not isinstance(array, np.memmap | SelectedRows):  # Files never change, and are opened again.
            assert not np.shares_memory(twin.stored()[key], array)
    twin.provenance["notes"].append("b")
    assert dataset.provenance["notes"] == ["a"]
    before = dataset.action_space.sample()
    dataset.action_space.seed(0)
    twin.action_space.seed(1)
    np.testing.assert_array_equal(dataset.action_space.sample(), before)


def test_pickles_of_files_are_small_and_say_if_the_files_are_gone(tmp_path: Path) -> None:
    big = np.zeros((20_000, 8), np.float32)
    dataset = TransitionDataset.from_arrays(
        big, big[:, :1], big[:, 0], big, terminations=big[:, 0], action_space=Box(-1, 1, (1,))
    )
    mapped = open_memmap(write_memmap(tmp_path / "files", dataset))
    pickled = pickle.dumps(mapped)
    assert len(pickled) < 10_000
    (tmp_path / "files").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"which does not exist any more\. Load the dataset again"):
        pickle.loads(pickled)
