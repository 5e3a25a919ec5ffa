from pathlib import Path

import numpy as np
import pytest

from flowpolicies.data import read_npz, write_npz


def test_arrays_survive_a_round_trip_and_leave_nothing_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data.v1"
    assert write_npz(path, {"a": np.arange(3), "b/c": np.ones((2, 2), np.float32)}) == path
    arrays = read_npz(path)
    assert sorted(arrays) == ["a", "b/c"]
    np.testing.assert_array_equal(arrays["a"], [0, 1, 2])
    assert arrays["b/c"].dtype == np.float32
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_npz(tmp_path / "data.npz", {"a": np.zeros(1)})

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        write_npz(path, {"a": np.ones(1)})
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(read_npz(path)["a"], [0])


def test_objects_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\['a'\] hold Python objects. Convert them to numbers first"):
        write_npz(tmp_path / "data.npz", {"a": np.array([None]), "b": np.zeros(1)})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: '.*none\.npz'. Give the path of an \.npz file"):
        read_npz(tmp_path / "none.npz")


def test_the_file_that_was_meant_is_named(tmp_path: Path) -> None:
    write_npz(tmp_path / "data.npz", {"a": np.zeros(1)})
    with pytest.raises(FileNotFoundError, match=r"no such file: '.*dta\.npz'\. Did you mean 'data\.npz'\?"):
        read_npz(tmp_path / "dta.npz")


def test_flipped_bytes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).normal(size=1000))
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"data\.npz', array 'a': .*Files must be complete"):
        read_npz(path)


def test_other_and_cut_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.npz"
    text.write_text("hello")
    cut = write_npz(tmp_path / "cut.npz", {"a": np.zeros(1000)})
    cut.write_bytes(cut.read_bytes()[:-50])
    for path in (text, cut):
        with pytest.raises(ValueError, match=r"is not an \.npz file, or only a part of one"):
            read_npz(path)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "pickle.npz"
    np.savez(path, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError, match="pickled objects are never loaded"):
        read_npz(path)
