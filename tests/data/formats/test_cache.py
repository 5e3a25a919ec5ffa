"""Data laid out as files the first time, and opened afterwards."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import pendulum_data

from flowpolicies.data import TransitionDataset, load_dataset, write_memmap
from flowpolicies.data.formats.cache import from_shards, join


def save(folder: Path, count: int = 3) -> list[Path]:
    return [pendulum_data(40, seed=seed).save(folder / f"shard-{seed}.npz") for seed in range(count)]


def columns(dataset: TransitionDataset) -> dict[str, Any]:
    return {key: np.asarray(array) for key, array in dataset.arrays().items()}


def test_files_hold_what_memory_would(tmp_path: Path) -> None:
    files = save(tmp_path)
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
    files, cache = save(tmp_path), tmp_path / "cache"
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


def _open(folder: Path, barrier: Any, results: Any) -> None:
    def read(path: Path) -> TransitionDataset:
        with open(folder / "reads", "a") as file:
            file.write(f"{path.name}\n")
        time.sleep(0.1)
        return TransitionDataset.load(path)

    barrier.wait()
    files = sorted(folder.glob("*.npz"))
    results.put(from_shards({"name": "data"}, files, read, "memmap", folder / "cache").fingerprint)


def test_many_processes_write_it_once(tmp_path: Path) -> None:
    save(tmp_path, 2)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_open, args=(tmp_path, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert len({results.get(timeout=60) for _ in processes}) == 1
    for process in processes:
        process.join()
    assert sorted((tmp_path / "reads").read_text().split()) == ["shard-0.npz", "shard-1.npz"]


def test_a_fault_in_a_shard_leaves_nothing(tmp_path: Path) -> None:
    files = save(tmp_path)
    files[2].write_bytes(b"half")
    with pytest.raises(ValueError, match=r"shard-2\.npz' is not an \.npz file"):
        from_shards({"name": "data"}, files, TransitionDataset.load, "memmap", tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")] == []


def test_addresses_take_a_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = save(tmp_path, 1)
    options: dict[str, Any] = {"cache_dir": tmp_path / "cache"}
    mapped = load_dataset(f"npz:{file}", storage="memmap", **options)
    assert isinstance(mapped.actions, np.memmap)
    assert mapped.fingerprint == load_dataset(f"npz:{file}", storage="ram").fingerprint
    with monkeypatch.context() as patch:
        patch.setattr("flowpolicies.data.formats.cache.write_memmap", None)  # It is not read again.
        again = load_dataset(f"npz:{file}", storage="memmap", **options)
    assert again.actions.filename == mapped.actions.filename
    folder = write_memmap(tmp_path / "folder", mapped)
    for storage in (None, "memmap"):
        assert load_dataset(f"memmap:{folder}", storage=storage).fingerprint == mapped.fingerprint


def test_mistakes_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown storage 'disk' \(known: ram, memmap\)"):
        from_shards({"name": "data"}, save(tmp_path), TransitionDataset.load, "disk")
    with pytest.raises(FileNotFoundError, match=r"no such file: '.*shart-1\.npz'\. Did you mean '.*shard-.\.npz'"):
        load_dataset(f"npz:{tmp_path}/shart-1.npz", storage="memmap")
    other = TransitionDataset.from_arrays([[1.0]], [[0.0]], [0], [[1.0]], terminations=[1])
    with pytest.raises(ValueError, match=r"dataset 1 \('arrays'\) has other spaces than the first"):
        join([pendulum_data(10), other])
