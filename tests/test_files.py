import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from flowpolicies import files
from flowpolicies.files import atomic_folder, atomic_path, atomic_write, write_json


@pytest.fixture
def umask_037() -> Iterator[None]:
    """A umask that gives other permissions than the usual one and than `tempfile`."""
    old = os.umask(0o037)
    yield
    os.umask(old)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Inodes of the files that were put on the disk, in order."""
    inodes: list[int] = []
    monkeypatch.setattr(files.os, "fsync", lambda number: inodes.append(os.fstat(number).st_ino))
    return inodes


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file"
    with atomic_write(path) as file:
        file.write(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_a_library_writes_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file"
    for content in ("old", "new"):
        with atomic_path(path) as temporary:
            assert temporary.parent == path.parent
            temporary.write_text(content)
            assert not path.exists() or path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "parent" / "folder"
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("old")
        assert not path.exists()
    with atomic_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "b").write_text("new")
        assert [file.name for file in path.iterdir()] == ["a"]
    assert [file.relative_to(path).as_posix() for file in sorted(path.rglob("*"))] == ["inner", "inner/b"]
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [atomic_path, atomic_folder])
@pytest.mark.parametrize("replace", [True, False])
def test_a_failure_of_a_library_leaves_nothing(
    tmp_path: Path, write: Callable[[Path], AbstractContextManager[Path]], replace: bool
) -> None:
    path = tmp_path / "target"
    if replace:
        path.mkdir()
        (path / "old").touch()

    def fail() -> None:
        with write(path) as temporary:
            (temporary / "half" if temporary.is_dir() else temporary).write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail()
    assert [file.name for file in sorted(tmp_path.rglob("*"))] == (["target", "old"] if replace else [])


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    rename = os.replace

    def replace(source: Path, target: Path) -> None:
        if source.name.endswith(".tmp"):
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(OSError, match="no"), atomic_folder(path) as temporary:
        (temporary / "new").touch()
    assert [file.name for file in sorted(tmp_path.rglob("*"))] == ["folder", "old"]


def test_new_files_have_the_permissions_of_the_umask(tmp_path: Path, umask_037: None) -> None:
    with atomic_write(tmp_path / "file") as file:
        file.write(b"")
    with atomic_path(tmp_path / "path") as path:
        path.unlink()
        path.touch(0o600)  # As safetensors does.
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "inner").touch()
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.rglob("*")}
    assert modes == {"file": 0o640, "path": 0o640, "folder": 0o740, "inner": 0o640}


def test_the_content_is_on_the_disk_before_it_is_in_place(tmp_path: Path, synced: list[int]) -> None:
    with atomic_write(tmp_path / "file") as file:
        file.write(b"1")
    with atomic_path(tmp_path / "path") as path:
        path.write_text("2")
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "inner").write_text("3")
    written = [tmp_path / "file", tmp_path / "path", tmp_path / "folder" / "inner"]
    # A rename is on the disk when its folder is.
    assert [number for number in synced if number != tmp_path.stat().st_ino] == [p.stat().st_ino for p in written]
    assert synced[:2] == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]


def test_json_takes_paths(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"path": Path("x"), "numbers": (1, 2)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"path": "x", "numbers": [1, 2]}
