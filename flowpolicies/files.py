"""Writing of files and folders that are complete or not there at all, and the text formats JSON and CSV."""

from __future__ import annotations

import csv
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yields an open binary file that replaces `path` when the block ends without an error.

    Until then readers see the old file, and after an error they still do. The folder of `path` is made if it is
    missing. The new content is on the disk before it replaces the old one; only a process that is killed while it
    writes leaves its temporary file, `.NAME.XXXXXXXX.tmp` in the same folder.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        yield file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields the path of an empty temporary file, which replaces `path` when the block ends without an error.

    This is `atomic_write` for libraries that open files by themselves. The name ends in `.tmp`, so a library that
    derives the format from the ending has to be told the format.
    """
    with _temporary_name(path) as temporary:
        temporary.touch(exist_ok=False)
        permissions = temporary.stat().st_mode
        yield temporary
        temporary.chmod(permissions)  # A library may have made a new file; safetensors makes it private to its owner.
        _flush(temporary)
        os.replace(temporary, path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a new, empty folder, which replaces `path` when the block ends without an error.

    An old folder at `path` is deleted with everything in it, but only after the new one is in its place. File systems
    cannot exchange two folders in one step, so for a moment between two renames there is no folder at `path`.
    """
    with _temporary_name(path) as temporary:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        if path.exists():
            _exchange(path, temporary)
        else:
            os.replace(temporary, path)


def write_json(path: Path, data: Any) -> None:
    """Writes `data` as indented JSON, atomically; paths and other objects are written as their text."""
    with atomic_write(path) as file:
        file.write((json.dumps(data, indent=2, default=str) + "\n").encode())


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV, one line each."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@contextmanager
def _temporary_name(path: Path) -> Iterator[Path]:
    """Yields an unused name in the folder of `path`; whatever still has that name afterwards is deleted.

    The caller creates the file or folder, not `tempfile`, which would make it private to its owner: a new file is to
    have the permissions that the user's umask gives.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _hidden(path, "tmp")
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _hidden(path: Path, ending: str) -> Path:
    """A random name in the folder of `path`, because files cannot be renamed into another file system."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{ending}")


def _flush(path: Path) -> None:
    """Waits until the content of a file is on the disk, or a power cut after the rename could leave an empty file."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _exchange(path: Path, new: Path) -> None:
    """Puts the folder `new` in the place of the folder `path`, which is deleted."""
    old = _hidden(path, "old")
    os.replace(path, old)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(old, path)
        raise
    shutil.rmtree(old)
