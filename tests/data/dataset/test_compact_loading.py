"""Loading with compact=True: the same dataset as when it is loaded in full and made compact, without the memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from flowpolicies.data import TransitionDataset, load_dataset
from flowpolicies.data.dataset.checks import DataFault
from flowpolicies.data.dataset.compact import Successors
from flowpolicies.data.sources import SOURCES

Arrays = dict[str, Any]


def steps(lengths: tuple[int, ...], states: np.ndarray) -> Arrays:
    """Episodes that time out, whose states are the rows of `states`, one more for each episode than it has steps."""
    ends = np.cumsum(np.array(lengths) + 1) - 1
    now = np.delete(np.arange(ends[-1] + 1), ends)
    truncations = np.append(np.diff(now) != 1, True)
    rng = np.random.default_rng(0)
    return {
        "observations": states[now],
        "next_observations": states[now + 1],
        "actions": rng.uniform(-1, 1, (len(now), 2)).astype(np.float32),
        "rewards": rng.normal(size=len(now)).astype(np.float32),
        "terminations": np.zeros(len(now)),
        "truncations": truncations,
    }


def numbers(lengths: tuple[int, ...], width: int = 3, dtype: Any = np.float32) -> Arrays:
    return steps(lengths, np.random.default_rng(0).normal(size=(sum(lengths) + len(lengths), width)).astype(dtype))


def saved(path: Path, arrays: Arrays) -> str:
    return f"npz:{TransitionDataset.from_arrays(**arrays).save(path / 'own.npz')}"


def foreign(path: Path, arrays: Arrays) -> str:
    np.savez(path / "foreign.npz", **arrays)
    return f"npz:{path / 'foreign.npz'}"


def in_hdf5(path: Path, arrays: Arrays, *, stored: bool = True, **options: Any) -> str:
    with h5py.File(path / "file.hdf5", "w") as file:
        for key, array in arrays.items():
            name = {"terminations": "terminals", "truncations": "timeouts"}.get(key, key)
            if key != "next_observations" or stored:
                file.create_dataset(name, data=array, **options)
    return f"hdf5:{path / 'file.hdf5'}"


def shifted(path: Path, arrays: Arrays) -> str:
    return in_hdf5(path, arrays, stored=False)


def compressed(path: Path, arrays: Arrays) -> str:
    return in_hdf5(path, arrays, compression="gzip")


WRITERS = [saved, foreign, in_hdf5, shifted, compressed]
Write = Callable[[Path, Arrays], str]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowpolicies.data.dataset.rows.BLOCK_BYTES", 1 << 15)


def check_alike(address: str, **options: Any) -> TransitionDataset:
    full, loaded = load_dataset(address, **options), load_dataset(address, compact=True, **options)
    assert full.final_observations is None
    assert loaded.final_observations is not None
    assert loaded.fingerprint == full.fingerprint
    assert loaded.episode_ends.tolist() == full.episode_ends.tolist()
    assert loaded.provenance == full.provenance
    for key, array in full.compact().stored().items():
        np.testing.assert_array_equal(loaded.stored()[key], array, key)
        assert loaded.stored()[key].dtype == array.dtype
    return loaded


@pytest.mark.filterwarnings("ignore:.*rows were dropped")
@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_the_dataset_that_is_loaded_in_full(
    tmp_path: Path, write: Write, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in (1, 60, 1 << 24):  # One row per block, five of them, and all.
        monkeypatch.setattr("flowpolicies.data.dataset.rows.BLOCK_BYTES", size)
        check_alike(write(tmp_path, numbers((1, 9, 1, 40, 2), dtype=dtype)))


@pytest.mark.filterwarnings("ignore:.*rows were dropped")
@pytest.mark.parametrize("write", WRITERS)
def test_next_observations_are_never_in_memory_as_a_whole(tmp_path: Path, write: Write, small_blocks: None) -> None:
    address = write(tmp_path, numbers((1000,) * 20, 40))
    peaks = []
    for compact in (False, True):
        load_dataset(address, compact=compact)  # Modules that are imported late would count.
        tracemalloc.start()
        loaded = load_dataset(address, compact=compact)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    size = sum(array.nbytes for array in loaded.arrays().values())
    assert peaks[0] >= size
    assert peaks[1] < 0.85 * size


def test_dicts_images_and_categories(tmp_path: Path) -> None:
    lengths, rng = (3, 5), np.random.default_rng(0)
    parts = {
        "image": steps(lengths, rng.integers(0, 255, (10, 8, 8, 3), np.uint8)),  # Channels last.
        "floats": steps(lengths, rng.uniform(size=(10, 3, 8, 8))),  # To be stored as bytes.
        "kind": steps(lengths, rng.integers(0, 4, 10)),
        "state": steps(lengths, rng.normal(size=(10, 2))),
    }
    arrays = {key: array for key, array in parts["kind"].items() if "observations" not in key}
    for key, part in parts.items():
        arrays |= {f"{name}/{key}": part[name] for name in ("observations", "next_observations")}
    space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (8, 8, 3), np.uint8),
            "floats": spaces.Box(0, 255, (3, 8, 8), np.uint8),
            "kind": spaces.Discrete(4),
            "state": spaces.Box(-np.inf, np.inf, (2,)),
        }
    )
    with pytest.warns(UserWarning, match="were multiplied by 255"):
        loaded = check_alike(foreign(tmp_path, arrays), observation_space=space)
    assert isinstance(loaded.next_observations, dict)
    assert all(isinstance(part, Successors) for part in loaded.next_observations.values())
    check_alike(f"npz:{TransitionDataset.save(load_dataset(foreign(tmp_path, arrays)), tmp_path / 'own.npz')}")
    state = spaces.Dict({"state": space["state"]})
    kept = {key: array for key, array in arrays.items() if "/" not in key or key.endswith("/state")}
    check_alike(in_hdf5(tmp_path, kept), observation_space=state)


@pytest.mark.parametrize("write", [saved, foreign, in_hdf5])
@pytest.mark.parametrize("row", [0, 4, 30, 52])
def test_a_row_that_is_not_the_observation_of_the_next_is_named(
    tmp_path: Path, write: Write, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowpolicies.data.dataset.rows.BLOCK_BYTES", 60)
    arrays = numbers((2, 9, 40, 2))
    ends = np.flatnonzero(arrays["truncations"])
    arrays["next_observations"][row, 1] += 1
    address = write(tmp_path, arrays)
    if row in ends:
        check_alike(address)
        return
    with pytest.raises(DataFault, match=rf"next_observations of row {row} \(episode .*\) are not the observations"):
        load_dataset(address, compact=True)


@pytest.mark.parametrize("write", [foreign, in_hdf5])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays["observations"].__setitem__((5, 0), np.nan), "observations hold 1 values that are NaN"),
        (lambda arrays: arrays.update(next_observations=arrays["next_observations"][:-1]), "shape|length"),
        (lambda arrays: arrays.update(next_observations=arrays["next_observations"][:, :2]), "shape"),
        (lambda arrays: arrays["truncations"].__setitem__(3, 7), "must be 0 or 1"),
    ],
)
def test_faults_of_the_data_are_named(tmp_path: Path, write: Write, change: Any, message: str) -> None:
    arrays = numbers((2, 9))
    arrays["truncations"] = arrays["truncations"].astype(np.float32)
    change(arrays)
    if "NaN" in message:
        arrays["next_observations"][4, 0] = np.nan  # The same state.
    with pytest.raises(DataFault, match=message):
        load_dataset(write(tmp_path, arrays), compact=True)


def test_arrays_that_are_stored_by_columns_or_in_another_type(tmp_path: Path) -> None:
    arrays = numbers((2, 9))
    check_alike(foreign(tmp_path, {**arrays, "next_observations": np.asfortranarray(arrays["next_observations"])}))
    check_alike(foreign(tmp_path, {**arrays, "next_observations": arrays["next_observations"].astype(np.float64)}))
    check_alike(in_hdf5(tmp_path, {**arrays, "next_observations": arrays["next_observations"].astype(">f4")}))
    rounded = {key: array.round() if "observations" in key else array for key, array in arrays.items()}
    check_alike(in_hdf5(tmp_path, {**rounded, "observations": rounded["observations"].astype(np.int64)}))


def test_a_damaged_block_is_found(tmp_path: Path, small_blocks: None) -> None:
    path = Path(saved(tmp_path, numbers((1000,) * 2, 40)).removeprefix("npz:"))
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"next_observations.npy") + 320_000 - 2_000] ^= 1  # In the last state.
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"next_observations': .*CRC"):
        TransitionDataset.load(path, compact=True)


def test_a_source_with_the_option_is_asked_for_compact_data(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, *, compact: bool) -> TransitionDataset:
        asked.append(compact)
        return TransitionDataset.from_arrays(**numbers((2, 3)))

    monkeypatch.setattr(SOURCES["datasets"], "find", lambda name: load)
    datasets = [load_dataset("npz:any", compact=compact) for compact in (False, True)]
    assert asked == [False, True]
    assert [dataset.final_observations is None for dataset in datasets] == [True, False]
