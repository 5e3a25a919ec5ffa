"""Folders of memory-mapped datasets, which are complete or absent and equal what was written, and their cache."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import pendulum_data

from flowpolicies.data import TransitionDataset, load_dataset, open_memmap, write_memmap
from flowpolicies.data.dataset import rows
from flowpolicies.data.formats.memmap import from_shards, join
from flowpolicies.data.replay.buffer import TransitionBuffer


def same(a: TransitionDataset, b: TransitionDataset) -> bool:
    arrays, others = a.arrays(), b.arrays()
    return arrays.keys() == others.keys() and all(np.array_equal(arrays[key], others[key]) for key in arrays)


def test_what_was_written_is_read_and_has_the_same_fingerprint(tmp_path: Path) -> None:
    dataset = pendulum_data()
    opened = open_memmap(write_memmap(tmp_path / "data", dataset))
    assert same(opened, dataset)
    assert opened.fingerprint == dataset.fingerprint
    assert opened.provenance == {**dataset.provenance, "shard_ends": [400]}
    assert opened.observation_space == dataset.observation_space
    assert opened.episode_ends.tolist() == dataset.episode_ends.tolist()
    assert all(isinstance(array, np.memmap) for array in opened.arrays().values())
    assert TransitionDataset(**{name: getattr(opened, name) for name in opened.__dataclass_fields__}).summary()


def test_a_folder_of_shards_equals_their_concatenation_and_only_one_is_held(tmp_path: Path) -> None:
    alive: list[object] = []

    def shards() -> Iterator[TransitionDataset]:
        import weakref

        for seed in range(3):
            assert all(ref() is None for ref in alive), "an earlier shard is still in memory"
            shard = pendulum_data(100, seed)
            alive.append(weakref.ref(shard))
            yield shard
            del shard

    opened = open_memmap(write_memmap(tmp_path / "data", shards()))
    parts = [pendulum_data(100, seed).arrays() for seed in range(3)]
    for key, array in opened.arrays().items():
        np.testing.assert_array_equal(array, np.concatenate([part[key] for part in parts]))
    assert opened.episode_ends.tolist() == [49, 99, 149, 199, 249, 299]
    assert opened.provenance["shard_ends"] == [100, 200, 300]


def test_dict_observations(tmp_path: Path) -> None:
    space = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Box(0, 255, (3, 4, 4), np.uint8)})
    rng = np.random.default_rng(0)
    observations = {"a": rng.uniform(size=(6, 2)), "b": rng.integers(0, 255, (6, 3, 4, 4), np.uint8)}
    dataset = TransitionDataset.from_arrays(
        observations, np.zeros((6, 1)), np.zeros(6), observations, terminations=np.zeros(6), observation_space=space
    )
    opened = open_memmap(write_memmap(tmp_path / "data", dataset))
    assert same(opened, dataset)
    assert opened.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("windows", ["uniform", "episodes"])
@pytest.mark.parametrize("largest", [0, rows.MAPPED_BYTES])  # Read by position, and through the memory map.
def test_batches_are_those_of_the_dataset_in_memory(
    tmp_path: Path, windows: str, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAPPED_BYTES", largest)
    dataset = pendulum_data()
    opened = open_memmap(write_memmap(tmp_path / "data", dataset))
    batches = []
    for data in (dataset, opened):
        buffer = TransitionBuffer(
            10, data.observation_space, data.action_space, "cpu", horizon=3, windows=windows, seed=0
        )
        buffer.attach(data)
        batches.append([buffer.sample(16) for _ in range(70)])  # Pages are handed back in between.
        assert pickle.loads(pickle.dumps(buffer)).offline is None
    for ours, theirs in zip(*batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def buffer_of(dataset: TransitionDataset, **options: Any) -> TransitionBuffer:
    buffer = TransitionBuffer(10, dataset.observation_space, dataset.action_space, "cpu", seed=0, **options)
    buffer.attach(dataset)
    return buffer


@pytest.mark.parametrize("windows", ["uniform", "episodes"])
def test_a_window_is_one_read_of_each_file(tmp_path: Path, windows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAPPED_BYTES", 0)
    buffer = buffer_of(
        open_memmap(write_memmap(tmp_path / "data", pendulum_data())), horizon=5, windows=windows, next_actions=False
    )
    reads: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, *where: reads.append(file) or pread(file, *where))
    buffer.sample(16)
    files = 2 if windows == "episodes" else 3  # RQL's next observations are observations.
    assert len(reads) == 3 * 16
    assert len(set(reads)) == files


@pytest.mark.parametrize("largest", [0, rows.MAPPED_BYTES])
def test_a_file_that_was_cut_while_it_was_in_use_is_named(
    tmp_path: Path, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAPPED_BYTES", largest)
    path = write_memmap(tmp_path / "data", pendulum_data())
    buffer = buffer_of(open_memmap(path))
    os.truncate(path / "next_observations.npy", 200)
    with pytest.raises(OSError, match=r"next_observations.npy' has 200 of .* bytes: it was changed while"):
        buffer.sample(16)


def test_nothing_is_half_written_and_nothing_is_replaced_by_accident(tmp_path: Path) -> None:
    def breaks() -> Iterator[TransitionDataset]:
        yield pendulum_data(100)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_memmap(tmp_path / "data", breaks())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no shard to write"):
        write_memmap(tmp_path / "data", [])
    write_memmap(tmp_path / "data", pendulum_data(100))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_memmap(tmp_path / "data", pendulum_data(100, 1))
    write_memmap(tmp_path / "data", pendulum_data(100, 1), overwrite=True)
    assert same(open_memmap(tmp_path / "data"), pendulum_data(100, 1))
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_damage_and_other_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        open_memmap(tmp_path)
    path = write_memmap(tmp_path / "data", pendulum_data(100))
    os.truncate(path / "rewards.npy", 200)
    with pytest.raises(ValueError, match=r"rewards\.npy': it has 200 bytes where the index says 528"):
        open_memmap(path)
    (path / "rewards.npy").unlink()
    with pytest.raises(ValueError, match="has no file"):
        open_memmap(path)
    index = json.loads((path / "index.json").read_text())
    (path / "index.json").write_text(json.dumps(index | {"format": 2}))
    with pytest.raises(ValueError, match="has format 2, this version reads 1"):
        open_memmap(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 1, "columns": {"actions": {}}}'])
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    path = write_memmap(tmp_path / "data", pendulum_data())
    (path / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json'.*: .* damaged"):
        open_memmap(path)


def test_shards_of_other_spaces_are_refused(tmp_path: Path) -> None:
    other = TransitionDataset.from_arrays(
        np.zeros((2, 4)), np.zeros((2, 1)), np.zeros(2), np.zeros((2, 4)), terminations=np.zeros(2), name="odd"
    )
    with pytest.raises(ValueError, match=r"shard 1 \('odd'\) has the observation_space"):
        write_memmap(tmp_path / "data", [pendulum_data(100), other])


@pytest.mark.parametrize("windows", ["uniform", "episodes"])
def test_shards_take_turns_as_in_the_references(tmp_path: Path, windows: str) -> None:
    """Rewards tell the shard: batches come from one at a time, and no window crosses its end."""

    def shard(number: int) -> TransitionDataset:
        zeros = np.zeros((20, 1), np.float32)
        ends = np.arange(20) % 10 == 9
        return TransitionDataset.from_arrays(
            zeros, zeros, np.full(20, number), zeros, terminations=np.zeros(20), truncations=ends
        )

    opened = open_memmap(write_memmap(tmp_path / "data", map(shard, range(3))))
    spaces_of = (opened.observation_space, opened.action_space)
    make = lambda every: TransitionBuffer(
        10, *spaces_of, "cpu", horizon=2, gamma=1.0, windows=windows, rotate_every=every, seed=0
    )
    buffer = make(2)
    buffer.attach(opened)
    seen = [set((buffer.sample(64).rewards / 2).tolist()) for _ in range(8)]
    assert [max(rewards) for rewards in seen] == [0, 0, 1, 1, 2, 2, 0, 0]
    assert all(rewards <= {number, number / 2} for rewards, number in zip(seen, (0, 0, 1, 1, 2, 2, 0, 0), strict=True))
    buffer.updates = 5  # What a continued run says.
    assert max(buffer.sample(64).rewards.tolist()) == 4
    every = make(None)
    every.attach(opened)
    assert {0.0, 2.0, 4.0} <= set(every.sample(256).rewards.tolist())
    with pytest.raises(ValueError, match="rotate_every is a number of batches"):
        make(0)


def save_shards(folder: Path, count: int = 3) -> list[Path]:
    return [pendulum_data(40, seed=seed).save(folder / f"shard-{seed}.npz") for seed in range(count)]


def columns(dataset: TransitionDataset) -> dict[str, Any]:
    return {key: np.asarray(array) for key, array in dataset.arrays().items()}


def test_files_hold_what_memory_would(tmp_path: Path) -> None:
    files = save_shards(tmp_path)
    ram = from_shards({"name": "data"}, files, TransitionDataset.load, "ram")
    mapped = from_shards({"name": "data"}, files, TransitionDataset.load, "memmap", tmp_path / "cache")
    assert isinstance(mapped.observations, np.memmap)
    assert not isinstance(ram.observations, np.memmap)
    assert ram.fingerprint == mapped.fingerprint
    np.testing.assert_array_equal(ram.episode_ends, mapped.episode_ends)
    for key, array in columns(ram).items():
        np.testing.assert_array_equal(array, columns(mapped)[key])
        np.testing.assert_array_equal(array, np.concatenate([columns(TransitionDataset.load(f))[key] for f in files]))


def test_they_are_written_once_for_what_they_are_made_of(tmp_path: Path) -> None:
    files, cache = save_shards(tmp_path), tmp_path / "cache"
    reads: list[Path] = []

    def read(path: Path) -> TransitionDataset:
        reads.append(path)
        return TransitionDataset.load(path)

    def count(identity: dict[str, Any]) -> int:
        reads.clear()
        from_shards(identity, files, read, "memmap", cache)
        return len(reads)

    assert [count({"name": "data"}) for _ in range(2)] == [3, 0]
    assert [count({"name": "data", "sparse": True}) for _ in range(2)] == [3, 0]
    os.utime(files[1], ns=(0, 0))
    assert [count({"name": "data"}) for _ in range(2)] == [3, 0]
    assert reads == []
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 3


def _open_in_process(folder: Path, barrier: Any, results: Any) -> None:
    def read(path: Path) -> TransitionDataset:
        with open(folder / "reads", "a") as file:
            file.write(f"{path.name}\n")
        time.sleep(0.1)
        return TransitionDataset.load(path)

    barrier.wait()
    files = sorted(folder.glob("*.npz"))
    results.put(from_shards({"name": "data"}, files, read, "memmap", folder / "cache").fingerprint)


def test_many_processes_write_it_once(tmp_path: Path) -> None:
    save_shards(tmp_path, 2)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_open_in_process, args=(tmp_path, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert len({results.get(timeout=60) for _ in processes}) == 1
    for process in processes:
        process.join()
    assert sorted((tmp_path / "reads").read_text().split()) == ["shard-0.npz", "shard-1.npz"]


def test_a_fault_in_a_shard_leaves_nothing(tmp_path: Path) -> None:
    files = save_shards(tmp_path)
    files[2].write_bytes(b"half")
    with pytest.raises(ValueError, match=r"shard-2\.npz': it is not an \.npz file"):
        from_shards({"name": "data"}, files, TransitionDataset.load, "memmap", tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")] == []


def test_addresses_take_a_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = save_shards(tmp_path, 1)
    options: dict[str, Any] = {"cache_dir": tmp_path / "cache"}
    mapped = load_dataset(f"npz:{file}", storage="memmap", **options)
    assert isinstance(mapped.actions, np.memmap)
    assert mapped.fingerprint == load_dataset(f"npz:{file}", storage="ram").fingerprint
    with monkeypatch.context() as patch:
        patch.setattr("flowpolicies.data.formats.memmap.write_memmap", None)  # It is not read again.
        again = load_dataset(f"npz:{file}", storage="memmap", **options)
    assert again.actions.filename == mapped.actions.filename
    folder = write_memmap(tmp_path / "folder", mapped)
    for storage in (None, "memmap"):
        assert load_dataset(f"memmap:{folder}", storage=storage).fingerprint == mapped.fingerprint


def test_mistakes_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown storage 'disk' \(known: ram, memmap\)"):
        from_shards({"name": "data"}, save_shards(tmp_path), TransitionDataset.load, "disk")
    with pytest.raises(FileNotFoundError, match=r"no such file: '.*shart-1\.npz'\. Did you mean '.*shard-.\.npz'"):
        load_dataset(f"npz:{tmp_path}/shart-1.npz", storage="memmap")
    other = TransitionDataset.from_arrays([[1.0]], [[0.0]], [0], [[1.0]], terminations=[1])
    with pytest.raises(ValueError, match=r"dataset 1 \('arrays'\) has other spaces than the first"):
        join([pendulum_data(10), other])
