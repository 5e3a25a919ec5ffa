"""Files of datasets with random damage are read, or refused by one class of error, soon and without running code."""

from __future__ import annotations

import json
import random
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data import TransitionDataset, load_dataset, write_memmap

CASES = 60
FORBIDDEN = ("import", "exec", "compile", "os.system", "subprocess.Popen", "pickle.find_class", "ctypes.dlopen")
EXTREME = [None, True, -1, 0, 10**18, 1e308, "", "x", "../x", [], {}, [10**9] * 4, "O", "|O", [[]], {"type": "Dict"}]

watched: list[str] | None = None


def watch(event: str, _: object) -> None:
    if watched is not None and event in FORBIDDEN:
        watched.append(event)


sys.addaudithook(watch)  # It stays for the whole process, and does nothing outside of `forbidden_events`.


@pytest.fixture
def forbidden_events() -> Iterator[list[str]]:
    """The events that must not occur while a file is read, as they occur."""
    global watched
    watched = []
    yield watched
    watched = None


def make_dataset() -> TransitionDataset:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(44, 3)).astype(np.float32)
    actions, rewards = rng.uniform(-1, 1, (10, 2)), rng.normal(size=10)
    return TransitionDataset.from_episodes(
        {"observations": states[part : part + 11], "actions": actions, "rewards": rewards, "terminations": part == 11}
        for part in (0, 11, 22, 33)
    )


def damage(content: bytes, rng: random.Random) -> bytes:
    """The content with a few bytes changed, cut off, doubled or inserted."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        place, length = rng.randrange(len(changed) + 1), rng.choice((1, 2, 4, 8, 100))
        match rng.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                changed[place : place + length] = rng.randbytes(length)
            case 2:
                changed[place : place + length] = rng.choice((b"\xff", b"\0", b"[", b"9")) * length
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place:place] = changed[place : place + length]
            case _:
                del changed[max(1, place) :]
    return bytes(changed)


def damage_json(value: Any, rng: random.Random) -> Any:
    """The value with one random part replaced by an extreme one."""
    if isinstance(value, dict | list) and value and rng.random() < 0.8:
        key: Any = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        value[key] = damage_json(value[key], rng)
        return value
    return rng.choice(EXTREME)


def fuzz(make: Callable[[random.Random], str], events: list[str]) -> None:
    refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(CASES):
        address = make(random.Random(seed))
        events.clear()
        start = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load_dataset(address)
        except (ArtifactError, FileNotFoundError):
            refused += 1
        assert time.monotonic() - start < 2, seed
        assert events == [], seed
    assert refused > CASES / 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024  # In kB.


def fuzz_file(path: Path, address: str, forbidden_events: list[str]) -> None:
    """Damages a file, which loads as it is, in many ways."""
    content = path.read_bytes()
    assert len(load_dataset(address)) == 40

    def make(rng: random.Random) -> str:
        path.write_bytes(damage(content, rng))
        return address

    fuzz(make, forbidden_events)


@pytest.mark.parametrize("kind", ["saved", "plain", "compressed"])
def test_npz(tmp_path: Path, forbidden_events: list[str], kind: str) -> None:
    dataset, path = make_dataset(), tmp_path / "data.npz"
    if kind == "saved":
        dataset.save(path)
    else:
        arrays = {key: np.asarray(array) for key, array in dataset.arrays().items()}
        (np.savez if kind == "plain" else np.savez_compressed)(path, **arrays)
    fuzz_file(path, f"npz:{path}", forbidden_events)


@pytest.mark.parametrize("is_compressed", [False, True])
def test_hdf5(tmp_path: Path, forbidden_events: list[str], is_compressed: bool) -> None:
    dataset, path = make_dataset(), tmp_path / "data.hdf5"
    options = {"chunks": True, "compression": "gzip"} if is_compressed else {}
    with h5py.File(path, "w") as file:
        for key in ("observations", "actions", "rewards", "terminals", "next_observations"):
            file.create_dataset(key, data=np.asarray(dataset.arrays()[key]), **options)
        file["timeouts"] = np.zeros(40, bool)
    fuzz_file(path, f"hdf5:{path}", forbidden_events)


@pytest.mark.parametrize("how", ["json", "bytes", "columns"])
def test_memmap(tmp_path: Path, forbidden_events: list[str], how: str) -> None:
    dataset: TransitionDataset = make_dataset()
    whole = write_memmap(tmp_path / "whole", dataset.compact())
    folder = shutil.copytree(whole, tmp_path / "folder")
    assert len(load_dataset(f"memmap:{folder}")) == 40

    def make(rng: random.Random) -> str:
        name = "index.json" if how != "columns" else rng.choice(sorted(path.name for path in whole.glob("*.npy")))
        for path in whole.iterdir():
            if (folder / path.name).read_bytes() != path.read_bytes():
                shutil.copy(path, folder / path.name)
        content = (whole / name).read_bytes()
        if how == "json":
            (folder / name).write_text(json.dumps(damage_json(json.loads(content), rng)))
        else:
            (folder / name).write_bytes(damage(content, rng))
        return f"memmap:{folder}"

    fuzz(make, forbidden_events)
