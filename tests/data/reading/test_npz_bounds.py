"""npz files from strangers: what they declare is checked before memory is used, and only plain arrays are read."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data import DataFault, TransitionDataset, load_dataset, read_npz, write_npz
from flowpolicies.data.dataset.checks import FileFault
from flowpolicies.data.reading import limits
from flowpolicies.data.reading.npy import read_header


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(text: str, version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode("latin1")


def archive(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 4), np.float16),
        np.array(3),
        np.array([True, False]),
        np.array(["text", "longer"]),
        np.array([b"x"]),
        np.arange(3, dtype=">i2"),
        np.array(["2020-01-01"], "M8[D]"),
        np.array([1 + 2j]),
    ],
)
def test_plain_arrays_are_read_as_numpy_reads_them(tmp_path: Path, array: Any) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=array)
    found = read_npz(tmp_path / "a.npz")["x"]
    expected = np.load(tmp_path / "a.npz")["x"]
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.shape, found.flags.f_contiguous) == (
        expected.dtype,
        expected.shape,
        expected.flags.f_contiguous,
    )


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }          \n",
        '{"shape": (2, ), "fortran_order": False, "descr": "<f4"}\n',
        "{'descr': '<f4','fortran_order': False,'shape': (1,2)}",
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_other_programs_are_read(text: str, version: int) -> None:
    content = header(text, version)
    found = read_header(io.BytesIO(content), Path("x"))
    assert (found.dtype, found.nbytes, found.offset) == (np.float32, 8, len(content))


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').system('x'),)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "(" * 500 + ",)}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
        "[1]",
        "",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}",
    ],
)
def test_other_headers_are_refused(tmp_path: Path, text: str) -> None:
    path = archive(tmp_path / "a.npz", [("x.npy", header(text) + bytes(8))])
    with pytest.raises(ArtifactError, match=r"a\.npz', array 'x': .*pickled objects are never loaded"):
        read_npz(path)


def test_long_headers_are_not_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", [("x.npy", header("{" + " " * 20_000 + "}"))])
    with pytest.raises(ArtifactError, match="its header has 20,002 bytes; at most 10,000 are read"):
        read_npz(path)


def test_small_files_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.FLOOR == 1 << 28
    monkeypatch.setattr(limits, "FLOOR", 1 << 24)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((1 << 24) + 1, np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < 20_000
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match=r"bomb\.npz', array 'x': .* take 17 MB .*at most 17 MB .*max_bytes="):
            read_npz(tmp_path / "bomb.npz")
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()


def test_the_limit_is_an_option(tmp_path: Path) -> None:
    dataset = TransitionDataset.from_arrays(
        np.zeros((9, 3)), np.zeros((9, 1)), np.zeros(9), np.zeros((9, 3)), terminations=np.zeros(9)
    )
    path = dataset.save(tmp_path / "data.npz")
    assert len(load_dataset(f"npz:{path},max_bytes=10000")) == 9
    with pytest.raises(ArtifactError, match=r"at most 100 bytes are read \(max_bytes\)"):
        load_dataset(f"npz:{path},max_bytes=100")
    for wrong in ("0", "-1", "true", "1.5", "many"):
        with pytest.raises(ValueError, match=r"max_bytes is .*, and must be a whole number of bytes, at least 1"):
            load_dataset(f"npz:{path},max_bytes={wrong}")


def test_columns_of_zeros_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros(10_000_000, np.float32))
    assert (tmp_path / "zeros.npz").stat().st_size < 50_000
    assert read_npz(tmp_path / "zeros.npz")["x"].shape == (10_000_000,)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("x.txt", b"hello")], "it is not an array"),
        ([("../x.npy", npy(1))], "its name is a path"),
        ([("/x.npy", npy(1))], "its name is a path"),
        ([("a\\x.npy", npy(1))], "its name is a path"),
        ([("x.npy", npy(1)), ("x.npy", npy(2))], "two members of this name"),
        ([("x.npy", b"hello")], "it is not an array in NumPy's"),
        ([("x.npy", npy(np.zeros(9))[:-1])], "but 71 are stored"),
        ([("x.npy", npy(np.zeros(9)) + b"?")], "but 73 are stored"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_no_arrays_are_refused(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_npz(archive(tmp_path / "a.npz", members))


def test_files_that_begin_with_something_else_are_refused(tmp_path: Path) -> None:
    """An archive may lie behind other bytes, and would be found from its end."""
    path = write_npz(tmp_path / "a.npz", {"x": np.zeros(3)})
    path.write_bytes(b"\x80\x04" + path.read_bytes())
    with pytest.raises(ArtifactError, match=r"it is not an \.npz file"):
        read_npz(path)


def test_other_compressions_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", [("x.npy", npy(1))], zipfile.ZIP_LZMA)
    with pytest.raises(ArtifactError, match="compressed by method 14"):
        read_npz(path)


@pytest.mark.parametrize(
    "description",
    [
        '{"type": "Box", "shape": [1000000, 1000000], "dtype": "float32", "low": 0, "high": 1}',
        '{"type": "Box", "shape": [-1], "dtype": "float32", "low": 0, "high": 1}',
        '{"type": "MultiBinary", "n": 1000000000000}',
        '{"type": "Discrete", "n": 1000000000000, "start": 0, "dtype": "int64"}',
        '{"type": "Dict", "spaces": {"a": {"type": "Dict", "spaces": {"b": 3}}}}',
        '{"type": "Box", "shape": [1], "dtype": "object", "low": 0, "high": 1}',
        "[]",
        '{"type": "Evil"}',
        "[" * 5000,
    ],
)
def test_declared_spaces_are_checked_before_they_are_built(tmp_path: Path, description: str) -> None:
    dataset = TransitionDataset.from_arrays([[1.0]], [[0.0]], [0], [[1.0]], terminations=[1])
    path = dataset.save(tmp_path / "data.npz")
    arrays = read_npz(path)
    text = f'{{"format": 1, "observation_space": {description}, "action_space": {{}}, "provenance": {{}}}}'
    write_npz(path, {**arrays, "flowpolicies_dataset": np.frombuffer(text.encode(), np.uint8)})
    with pytest.raises(ArtifactError, match=r"data\.npz"):
        TransitionDataset.load(path)


def test_faults_of_the_data_in_a_file_are_both(tmp_path: Path) -> None:
    arrays = {"observations": np.zeros((2, 1)), "actions": np.full((2, 1), np.nan), "rewards": np.zeros(2)}
    path = write_npz(tmp_path / "a.npz", {**arrays, "next_observations": np.zeros((2, 1)), "terminations": np.zeros(2)})
    with pytest.raises(FileFault, match=r"a\.npz': dataset 'a': actions hold 2 values that are NaN") as caught:
        load_dataset(f"npz:{path}")
    assert isinstance(caught.value, DataFault)
    assert isinstance(caught.value, ArtifactError)
    with pytest.raises(DataFault) as plain:
        TransitionDataset.from_arrays(**arrays, next_observations=np.zeros((2, 1)), terminations=np.zeros(2))
    assert not isinstance(plain.value, ArtifactError)
