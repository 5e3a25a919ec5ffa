"""HDF5 files from strangers: links, foreign storage and sizes are checked before memory is used."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data import load_dataset
from flowpolicies.data.reading.hdf5 import open_hdf5

ROWS = 20


def write(path: Path, change: Callable[[h5py.File], object], *without: str) -> Path:
    columns = {
        "observations": np.zeros((ROWS, 3), np.float32),
        "actions": np.zeros((ROWS, 2), np.float32),
        "rewards": np.zeros(ROWS, np.float32),
        "terminals": np.zeros(ROWS, bool),
        "timeouts": np.arange(ROWS) % 5 == 4,
    }
    with h5py.File(path, "w") as file:
        for key, column in columns.items():
            if key not in without:
                file[key] = column
        change(file)
    return path


def link(file: h5py.File, target: h5py.SoftLink | h5py.ExternalLink) -> None:
    file["rewards"] = target


def external(file: h5py.File) -> None:
    file.create_dataset("rewards", (ROWS,), np.float32, external=[("/etc/passwd", 0, 4 * ROWS)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((ROWS,), np.float32)
    layout[:] = h5py.VirtualSource("/tmp/other.hdf5", "x", (ROWS,))
    file.create_virtual_dataset("rewards", layout)


def unallocated(file: h5py.File) -> None:
    file.create_dataset("rewards", (10**10,), np.float32, chunks=(1000,))


def wide_chunks(file: h5py.File) -> None:
    file.create_dataset("rewards", (ROWS,), np.float32, chunks=(2**29,), maxshape=(None,))


def cycle(file: h5py.File) -> None:
    group = file.create_group("observations")
    group["a"] = group


def unknown_filter(file: h5py.File) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((ROWS,))
    properties.set_filter(32026, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(file.id, b"rewards", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((ROWS,)), properties)


@pytest.mark.parametrize(
    ("without", "change", "message"),
    [
        ("rewards", external, "rewards: its numbers are stored in other files"),
        ("rewards", virtual, "rewards: its numbers are stored in other files"),
        ("rewards", lambda f: f.update(rewards=h5py.SoftLink("/x")) or None, "rewards: it is a link"),
        (
            "rewards",
            lambda f: f.update(rewards=h5py.ExternalLink("/etc/passwd", "/x")) or None,
            "rewards: it is a link",
        ),
        ("rewards", unallocated, "rewards: .* take 40 GB in memory"),
        ("rewards", wide_chunks, "rewards: .* take 2,147 MB in memory"),
        ("observations", cycle, "observations/a: it is a group, not an array"),
        ("rewards", unknown_filter, r"rewards: its filters are \[32026\]"),
        (
            "rewards",
            lambda f: f.create_dataset("rewards", data=[b"x", "y"] * 10, dtype=h5py.string_dtype()),
            "not numbers",
        ),
        ("rewards", lambda f: f.create_dataset("rewards", (ROWS,), h5py.ref_dtype), "not numbers"),
        ("rewards", lambda f: f.create_group("rewards"), "rewards"),
        ("rewards", lambda f: f.create_dataset("rewards", (ROWS,), [("a", "f4")]), "not numbers"),
    ],
)
def test_what_is_not_stored_in_the_file_is_refused(
    tmp_path: Path, without: str, change: Callable[[h5py.File], object], message: str
) -> None:
    path = write(tmp_path / "data.hdf5", change, without)
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match=rf"data\.hdf5.*{message}"):
            load_dataset(f"hdf5:{path}")
        assert tracemalloc.get_traced_memory()[1] < 2e7
    finally:
        tracemalloc.stop()


def test_plain_and_compressed_columns_are_read(tmp_path: Path) -> None:
    def compressed(file: h5py.File) -> None:
        file.create_dataset(
            "rewards", data=np.zeros(ROWS), chunks=(6,), compression="gzip", shuffle=True, fletcher32=True
        )
        file.create_dataset("infos/qpos", (10**9,), np.float32, chunks=(1000,))  # It is not read.
        file["metadata"] = h5py.ExternalLink("/etc/passwd", "/x")

    assert len(load_dataset(f"hdf5:{write(tmp_path / 'data.hdf5', compressed, 'rewards')}")) > 0


def test_chunks_that_unpack_to_more_than_declared_are_refused(tmp_path: Path) -> None:
    """HDF5 unpacks all bytes of a chunk before it looks at their number."""
    bomb = zlib.compress(bytes(1 << 26), 9)

    def change(file: h5py.File) -> None:
        rewards = file.create_dataset("rewards", (ROWS,), np.float32, chunks=(ROWS,), compression="gzip")
        rewards.id.write_direct_chunk((0,), bomb)

    with pytest.raises(ArtifactError, match="rewards: a chunk of 80 bytes unpacks to more"):
        load_dataset(f"hdf5:{write(tmp_path / 'data.hdf5', change, 'rewards')},max_bytes={1 << 24}")


def test_large_compressed_chunks_are_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("x", data=values, chunks=(100_000,), compression="gzip", fletcher32=True)
    with open_hdf5(tmp_path / "a.hdf5", 1 << 20) as group:
        np.testing.assert_array_equal(group.array("x"), values)


def test_the_limit_is_an_option(tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5", lambda _: None)
    with pytest.raises(ArtifactError, match=r"at most 300 bytes are read \(max_bytes\)"):
        load_dataset(f"hdf5:{path},max_bytes=300")
    assert len(load_dataset(f"hdf5:{path},max_bytes=100000")) == 16
