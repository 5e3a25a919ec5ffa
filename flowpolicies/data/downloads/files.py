"""Downloaded files on disk: their records, whether they are unchanged, and the renaming of broken ones."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import final

from flowpolicies.artifacts import ArtifactError, parse_json
from flowpolicies.files import write_json
from flowpolicies.messages import did_you_mean


@final
@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Origin and content of a downloaded file, kept beside it as JSON (`data.npz.download.json`)."""

    url: str
    """Address that the file was downloaded from, or would have been if somebody had not copied it there."""
    size: int
    """Size of the file in bytes."""
    sha256: str
    """SHA-256 of the content, 64 hexadecimal digits."""
    mtime_ns: int
    """Modification time of the file in nanoseconds. While it and the size are the same, the content is not read."""
    date: str
    """Time when the record was written: UTC, ISO 8601."""


_HASH = re.compile("[0-9a-f]{64}")


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with `~` expanded, unless a file of exactly that name exists or there is no such user."""
    path = Path(path)
    if str(path).startswith("~") and not path.exists():
        with contextlib.suppress(RuntimeError):
            return path.expanduser()
    return path


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """Returns the path with `~` expanded, if there is a file.

    Args:
        path: any path.
        what: the kind of file that is needed, for messages, such as "an .npz file".

    Raises:
        FileNotFoundError: if there is no such file; the message suggests a file of a similar name in the same folder.
    """
    try:
        path = expanded(path)
        found = path.is_file()
    except OSError as error:  # A name or a path is longer than the file system allows.
        text = os.fspath(path)
        raise FileNotFoundError(f"no such file: '{text[:80]}...', a path of {len(text):,} characters.") from error
    if found:
        return path
    if path.is_dir():
        raise FileNotFoundError(f"'{path}' is a folder. Give the path of {what}.")
    siblings = [entry.name for entry in path.parent.iterdir() if entry.is_file()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, siblings) or f" Give the path of {what} with its ending."
    raise FileNotFoundError(f"no such file: '{path}'.{hint}")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_path(path: Path) -> Path:
    """The path of a file's record."""
    return path.with_name(f"{path.name}.download.json")


def read_record(path: Path) -> FileRecord | None:
    """Reads the record of a file; None if there is no record.

    Raises:
        ArtifactError: if the record cannot be read.
    """
    record = record_path(path)
    if not record.is_file():
        return None
    hint = f"Delete it to accept '{path.name}' as it is now."
    try:
        found = parse_json(record.read_bytes(), record)
        read = FileRecord(**found)
    except (TypeError, ArtifactError) as error:
        problem = error.problem if isinstance(error, ArtifactError) else str(error)
        raise ArtifactError(record, f"it is not a record of a download ({problem})", hint=hint) from error
    kinds = {field.name: {"str": str, "int": int}[str(field.type)] for field in dataclasses.fields(FileRecord)}
    if not all(isinstance(found[key], kind) for key, kind in kinds.items()) or not _HASH.fullmatch(read.sha256):
        raise ArtifactError(record, "it is not a record of a download (a value has another type)", hint=hint)
    return read


def write_record(path: Path, record: FileRecord) -> None:
    """Writes the record of a file, atomically."""
    write_json(record_path(path), dataclasses.asdict(record))


def is_intact(path: Path, record: FileRecord, *, full: bool) -> bool:
    """Whether a file has the size and the SHA-256 of its record.

    Args:
        path: the file.
        record: the record of the file.
        full: True: always read the content. False: only if the modification time is not that of the record.
    """
    status = path.stat()
    if status.st_size != record.size:
        return False
    return (not full and status.st_mtime_ns == record.mtime_ns) or sha256_of(path) == record.sha256


def quarantine(path: Path, content: Path | None = None) -> Path:
    """Renames a broken file to the first free `NAME.broken-N`, copies its record, and returns the new path.

    The record also stays where it is, because a file that is downloaded again must be the recorded one.

    Args:
        path: the file that the content was meant for, which gives the name.
        content: the broken file; None: `path` itself.
    """
    number = 1
    while (target := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    if content is None and record_path(path).exists():
        shutil.copyfile(record_path(path), record_path(target))
    os.replace(content or path, target)
    return target
