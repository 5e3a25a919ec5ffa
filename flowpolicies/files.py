"""Writing of files and folders that are complete or not there at all, and the text formats JSON and CSV."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO, StringIO
from pathlib import Path
from typing import Any, BinaryIO, final

LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.(tmp|old)")
"""Names of what a process that was killed while it wrote or deleted files may leave behind."""

NO_SPACE: dict[int, str] = {
    errno.ENOSPC: "the disk is full",
    getattr(errno, "EDQUOT", -1): "the quota of its user is used up",
    errno.EFBIG: "the largest size of a file that is allowed here (ulimit -f) is exceeded",
}
"""Numbers of the errors that more space mends, and what they mean."""


@final
class NoSpaceError(OSError):
    """A file could not be written for lack of space. What was at its path before is still there.

    Args:
        number: number of the error, one of `NO_SPACE`.
        path: path of the file.
        needed: number of bytes that the file needs at least.
    """

    def __init__(self, number: int, path: Path, needed: int) -> None:
        super().__init__(number, os.strerror(number), str(path))
        self.path, self.needed = path, needed

    def __str__(self) -> str:
        free = ""
        with suppress(OSError):  # What was written of the file is deleted by now.
            free = f", and {shutil.disk_usage(self.path.parent).free:,} bytes are free on its disk"
        return (
            f"'{self.path}' could not be written: {NO_SPACE[self.errno or errno.ENOSPC]}. It needs at least "
            f"{self.needed:,} bytes{free}. Nothing was changed. Free some space, or choose another folder, and repeat "
            "the command (a training run continues with --resume)."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.errno, self.path, self.needed)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yields an open binary file that replaces `path` when the block ends without an error.

    Until then readers see the old file, and after an error they still do. The folder of `path` is made if it is
    missing. The new content is on the disk before it replaces the old one; only a process that is killed while it
    writes leaves its temporary file, `.NAME.XXXXXXXX.tmp` in the same folder.
    """
    with atomic_path(path) as temporary:
        raw = _RawFile(temporary, "wb")
        with naming_lack_of_space(path, lambda: raw.needed), BufferedWriter(raw) as file:
            yield file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields the path of an empty temporary file, which replaces `path` when the block ends without an error.

    This is `atomic_write` for libraries that open files by themselves. The name ends in `.tmp`, so a library that
    derives the format from the ending has to be told the format.
    """
    with naming_lack_of_space(path), _temporary_name(path) as temporary:
        temporary.touch(exist_ok=False)
        permissions = temporary.stat().st_mode
        with naming_lack_of_space(path, lambda: temporary.stat().st_size + 1):
            yield temporary
        temporary.chmod(permissions)  # A library may have made a new file; safetensors makes it private to its owner.
        _flush(temporary)
        os.replace(temporary, path)
        _flush_folder(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a new, empty folder, which replaces `path` when the block ends without an error.

    An old folder at `path` is deleted with everything in it, but only after the new one is in its place. File systems
    cannot exchange two folders in one step, so for a moment between two renames there is no folder at `path`.
    """
    with naming_lack_of_space(path), _temporary_name(path) as temporary:
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


def append_text(path: Path, text: str) -> None:
    """Appends text to a file, which is made if it is missing. If the disk is full, the file stays as it was.

    Raises:
        NoSpaceError: if there is no space.
    """
    content = text.encode()
    with naming_lack_of_space(path, lambda: len(content)), open(path, "ab", buffering=0) as file:
        before = file.tell()
        try:
            written = file.write(content)
            while written < len(content):
                written += file.write(content[written:])
        except OSError:
            file.truncate(before)
            raise


def discard(path: Path) -> None:
    """Deletes a file or folder, if it is there, in one step: what a kill leaves of a folder has a `LEFTOVER` name."""
    if path.is_dir():
        hidden = _hidden(path, "old")
        os.replace(path, hidden)
        shutil.rmtree(hidden)
    else:
        path.unlink(missing_ok=True)


def discard_leftovers(folder: Path) -> None:
    """Deletes what processes that were killed have left in a folder. No process may be writing to it."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def naming_lack_of_space(path: Path, needed: Callable[[], int] = lambda: 1) -> Iterator[None]:
    """Raises an error for lack of space, of any library, as a `NoSpaceError` about `path`.

    Args:
        path: path of the file that is written in the block.
        needed: number of bytes that the file needs at least, which is asked after the error.
    """
    try:
        yield
    except Exception as error:  # Libraries written in other languages have errors of their own.
        number = _lack_of_space(error)
        if number is None or isinstance(error, NoSpaceError):
            raise
        raise NoSpaceError(number, path, needed()) from error


@final
class _RawFile(FileIO):
    """A file that knows how large it would have become if a write failed."""

    needed = 0

    def write(self, data: Any, /) -> int:
        self.needed = self.tell() + memoryview(data).nbytes
        return super().write(data)


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


def _flush_folder(path: Path) -> None:
    """Waits until the names of the files in a folder are on the disk; systems that cannot do that are left alone."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lack_of_space(error: BaseException | None) -> int | None:
    """Number of the error for lack of space that is behind an error; None if there is none."""
    while error is not None:
        named = re.search(r"os error (\d+)", str(error))  # As libraries written in Rust say it.
        number = error.errno if isinstance(error, OSError) else int(named[1]) if named else None
        if number in NO_SPACE:
            return number
        error = error.__cause__ or error.__context__
    return None


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
