"""Compact data: every state once, and nothing else is different."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from flowpolicies.data import TransitionDataset, load_dataset, open_memmap, write_memmap
from flowpolicies.data.dataset.compact import Successors
from flowpolicies.data.dataset.transforms import RewardTransform
from flowpolicies.data.formats.memmap import join
from flowpolicies.data.formats.sb3 import to_sb3_buffer
from flowpolicies.data.replay.buffer import TransitionBuffer

BOX = spaces.Box(-np.inf, np.inf, (2,))


def dict_data(lengths: tuple[int, ...] = (1, 9, 40, 2)) -> TransitionDataset:
    rng = np.random.default_rng(0)
    space = spaces.Dict({"image": spaces.Box(0, 255, (3, 4, 4), np.uint8), "state": BOX})
    episodes = [
        {
            "observations": {
                "state": rng.normal(size=(n + 1, 2)),
                "image": rng.integers(0, 255, (n + 1, 3, 4, 4), np.uint8),
            },
            "actions": rng.uniform(-1, 1, (n, 1)),
            "rewards": rng.normal(size=n),
            "terminations": n == 4,
        }
        for n in lengths
    ]
    return TransitionDataset.from_episodes(episodes, observation_space=space)


def box_data(rows: int = 400, seed: int = 0) -> TransitionDataset:
    """Episodes of 50 steps."""
    rng = np.random.default_rng(seed)
    episodes = [
        {
            "observations": rng.normal(size=(51, 3)),
            "actions": rng.uniform(-1, 1, (50, 1)),
            "rewards": rng.normal(size=50),
            "terminations": False,
        }
        for _ in range(rows // 50)
    ]
    return TransitionDataset.from_episodes(episodes)


def same(a: TransitionDataset, b: TransitionDataset) -> bool:
    arrays, others = a.arrays(), b.arrays()
    return arrays.keys() == others.keys() and all(np.array_equal(arrays[key], others[key]) for key in arrays)


@pytest.mark.parametrize("make", [box_data, dict_data])
def test_a_compact_dataset_reads_like_the_full_one_in_about_half_of_the_memory(make: object) -> None:
    dataset = make()
    compact = dataset.compact()
    assert same(compact, dataset)
    assert compact.compact() is compact
    assert compact.fingerprint == dataset.fingerprint
    assert "final_observations" in " ".join(compact.stored())
    assert "next_observations" not in " ".join(compact.stored())
    sizes = [
        sum(array.nbytes for key, array in d.stored().items() if "observations" in key) for d in (compact, dataset)
    ]
    assert sizes[0] == sizes[1] / 2 * (1 + dataset.num_episodes / len(dataset))
    # It was not only copied: checks, summary and rewards that are replaced work as well.
    assert dataclasses.replace(compact, rewards=compact.rewards + 1).fingerprint != dataset.fingerprint
    assert compact.summary() == dataset.summary()


def test_rows_of_next_observations_by_every_kind_of_index() -> None:
    dataset = box_data(100)
    full, compact = dataset.next_observations, dataset.compact().next_observations
    assert isinstance(compact, Successors)
    assert isinstance(full, np.ndarray)
    rng = np.random.default_rng(0)
    indices = [0, -1, 49, np.int64(50), slice(None), slice(40, 60, 3), slice(None, None, -1), [3, 49, -1]]
    indices += [rng.integers(-100, 100, (5, 3)), np.arange(100) % 7 == 0, (slice(40, 60), 1), (49, 2), np.zeros(0, int)]
    states = dataset.observations.copy()
    for index in indices:
        np.testing.assert_array_equal(compact[index], full[index], err_msg=repr(index))
    assert (compact.shape, compact.dtype, compact.ndim, len(compact)) == (full.shape, full.dtype, full.ndim, len(full))
    np.testing.assert_array_equal(compact - dataset.observations, full - dataset.observations)
    assert (compact == full).all()
    assert ((full == compact) == (compact == full)).all()
    assert (compact == full[0, 0]).any()
    assert np.asarray(compact, np.float64).dtype == np.float64
    np.testing.assert_array_equal(dataset.observations, states)
    for outside in (100, -101, [0, 100]):
        with pytest.raises(IndexError, match="out of bounds for 100 transitions"):
            compact[outside]


def test_data_without_order_cannot_be_compact() -> None:
    dataset = box_data(100)
    following = np.array(dataset.next_observations)
    following[[60, 70]] += 1e-3
    broken = dataclasses.replace(dataset, next_observations=following)
    with pytest.raises(ValueError, match=r"next_observations of row 60 \(episode 1, step 10\) are not"):
        broken.compact()


def test_parts_that_do_not_belong_together() -> None:
    states, finals = np.zeros((4, 2), np.float32), np.zeros((2, 2), np.float32)
    Successors(states, finals, np.array([1, 3]))
    for other in (finals[:1], finals[:, :1], finals.astype(np.float64)):
        with pytest.raises(ValueError, match="One is needed for each trajectory"):
            Successors(states, other, np.array([1, 3]))
    with pytest.raises(ValueError, match="do not fit 4 observations"):
        Successors(states, finals, np.array([1, 2]))
    compact = box_data(100).compact()
    with pytest.raises(ValueError, match="belong to 2 trajectories, and its terminals end 100"):
        dataclasses.replace(compact, terminals=np.ones(100, np.float32))


@pytest.mark.parametrize("make", [box_data, dict_data])
def test_files_are_compact_too(tmp_path: Path, make: object) -> None:
    dataset = make()
    compact = dataset.compact()
    loaded = TransitionDataset.load(compact.save(tmp_path / "compact.npz"))
    opened = open_memmap(write_memmap(tmp_path / "mapped", compact))
    for other in (loaded, opened):
        assert other.final_observations is not None
        assert same(other, dataset)
        assert other.fingerprint == dataset.fingerprint
    assert not list((tmp_path / "mapped").glob("next_observations*"))
    assert (tmp_path / "compact.npz").stat().st_size < dataset.save(tmp_path / "full.npz").stat().st_size


def test_shards_of_both_kinds_and_their_union(tmp_path: Path) -> None:
    shards = [box_data(100, seed) for seed in range(3)]
    whole = join(shards)
    joined = join([shard.compact() for shard in shards])
    assert joined.final_observations is not None
    assert same(joined, whole)
    assert same(join([shards[0], shards[1].compact(), shards[2]]), whole)
    for first in (shards[0], shards[0].compact()):
        path = write_memmap(tmp_path / str(len(list(tmp_path.iterdir()))), [first, shards[1].compact(), shards[2]])
        opened = open_memmap(path)
        assert same(opened, whole)
        assert opened.fingerprint == whole.fingerprint
        assert (opened.final_observations is None) == (first is shards[0])


@pytest.mark.parametrize("windows", ["uniform", "episodes"])
@pytest.mark.parametrize("storage", ["ram", "memmap", "memmap, compact afterwards"])
def test_batches_are_those_of_the_full_data(tmp_path: Path, windows: str, storage: str) -> None:
    dataset = dict_data((3, 9, 5, 1, 8))
    compact = dataset.compact()
    if storage == "memmap":
        compact = open_memmap(write_memmap(tmp_path / "data", compact))
    elif storage != "ram":
        compact = open_memmap(write_memmap(tmp_path / "data", dataset)).compact()
    assert compact.final_observations is not None
    batches = []
    for data in (dataset, compact):
        buffer = TransitionBuffer(
            10, data.observation_space, data.action_space, "cpu", horizon=3, windows=windows, seed=0
        )
        buffer.attach(data)
        batches.append(buffer.sample(64))
    for full, other in zip(*batches, strict=True):
        assert torch.equal(full, other)


def test_stacked_frames_of_compact_data() -> None:
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": rng.integers(0, 255, (n + 1, 3, 4, 4), np.uint8),
            "actions": np.zeros((n, 1)),
            "rewards": np.zeros(n),
            "terminations": False,
        }
        for n in (1, 5, 3)
    ]
    dataset = TransitionDataset.from_episodes(episodes)
    space = spaces.Box(0, 255, (9, 4, 4), np.uint8)
    batches = []
    for data in (dataset, dataset.compact()):
        buffer = TransitionBuffer(10, space, data.action_space, "cpu", frame_stack=3, seed=0)
        buffer.attach(data)
        batches.append(buffer.sample(64))
    assert all(torch.equal(full, other) for full, other in zip(*batches, strict=True))


def test_what_is_made_of_compact_data() -> None:
    dataset = box_data(100)
    compact = dataset.compact()
    buffers = [to_sb3_buffer(data, device="cpu") for data in (dataset, compact)]
    np.testing.assert_array_equal(buffers[0].next_observations, buffers[1].next_observations)
    scaled = [RewardTransform.fit("antmaze100", data).apply(data) for data in (dataset, compact)]
    assert scaled[1].final_observations is not None
    assert same(*scaled)


@pytest.mark.parametrize("storage", [None, "ram", "memmap"])
def test_any_source_can_be_asked_for_compact_data(tmp_path: Path, storage: str | None) -> None:
    dataset = box_data(100)
    path = dataset.save(tmp_path / "data.npz")
    loaded = load_dataset(f"npz:{path}", compact=True, storage=storage, cache_dir=tmp_path)
    assert loaded.final_observations is not None
    assert same(loaded, dataset)
    full = load_dataset(f"npz:{path}", storage=storage, cache_dir=tmp_path)
    assert full.final_observations is None
    assert full.fingerprint == loaded.fingerprint
