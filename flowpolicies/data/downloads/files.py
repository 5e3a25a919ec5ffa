"""Files on disk: is it there, is it still the one that was downloaded, and where a broken one goes."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

from flowpolicies.files import write_json


@final
@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What a file was when it was downloaded, kept beside it as JSON (`data.npz.download.json`)."""

    url: str
    """Where it came from."""
    size: int
    """Bytes."""
    sha256: str
    """Of its content, 64 hexadecimal digits."""
    mtime_ns: int
    """Time of modification; while it and the size stay the same, the content is not read again."""
    date: str
    """When it was recorded, UTC, ISO 8601."""


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """The path with `~` expanded.

    Args:
        path: any path.
        what: the kind of file that is wanted, such as "an .npz file".

    Raises:
        FileNotFoundError: if there is no such file; it names the one that was probably meant.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise FileNotFoundError(f"'{path}' is a folder. Give the path of {what}.")
    siblings = [entry.name for entry in path.parent.iterdir() if entry.is_file()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f"Did you mean '{path.with_name(close[0])}'?" if close else f"Give the path of {what} with its ending."
    raise FileNotFoundError(f"no such file: '{path}'. {hint}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_path(path: Path) -> Path:
    """Where the record of a file is."""
    return path.with_name(f"{path.name}.download.json")


def read_record(path: Path) -> FileRecord | None:
    """The record of a file; None if it has none.

    Raises:
        ValueError: if the record cannot be read.
    """
    record = record_path(path)
    if not record.is_file():
        return None
    try:
        return FileRecord(**json.loads(record.read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"'{record}' is no record of a download ({error}). Delete it to accept '{path.name}' as it is now."
        ) from error


def write_record(path: Path, record: FileRecord) -> None:
    """Puts `record` beside the file, whole or not at all."""
    write_json(record_path(path), dataclasses.asdict(record))


def is_intact(path: Path, record: FileRecord, *, full: bool) -> bool:
    """Whether the file is still the one of its record.

    Args:
        path: the file.
        record: what it was.
        full: read all of it; otherwise only if its time of modification is another one.
    """
    status = path.stat()
    if status.st_size != record.size:
        return False
    return (not full and status.st_mtime_ns == record.mtime_ns) or sha256_of(path) == record.sha256


def quarantine(path: Path, content: Path | None = None) -> Path:
    """Renames a broken file, and its record, to the first free `NAME.broken-N`; nothing is deleted.

    Args:
        path: the file.
        content: what is broken, if it has not taken the place of `path` yet.
    """
    number = 1
    while (target := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    if content is None and record_path(path).exists():
        os.replace(record_path(path), record_path(target))
    os.replace(content or path, target)
    return target
