"""Download of one file: interrupted downloads are resumed, the content is checked, and only one process downloads.

Beside `data.npz` there may be `data.npz.download.json` (size and SHA-256 of the downloaded file, see `FileRecord`),
`.data.npz.lock` (held by the process that downloads), `.data.npz.part` and `.data.npz.part.json` (an incomplete
download, which the next call continues), and `data.npz.broken-1` (a file that failed a check). The environment
variables `HTTPS_PROXY` and `NO_PROXY` choose the proxy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data.downloads.files import (
    FileRecord,
    is_intact,
    quarantine,
    read_record,
    record_path,
    sha256_of,
    write_record,
)
from flowpolicies.data.downloads.transfer import Clock, Interrupted, PartialFile, Refused, Transfer

OFFLINE_VARIABLE = "FLOWPOLICIES_OFFLINE"
"""Environment variable that turns downloads off; an empty value and 0 leave them on."""

_MOST_SECONDS_BETWEEN_ATTEMPTS = 30.0


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    check: Callable[[Path], None] | None = None,
    full: bool = False,
    offline: bool | None = None,
    transfer: Transfer | None = None,
) -> Path:
    """Downloads the file of `url` to `path` unless it exists, checks it in any case, and returns `path`.

    An existing file is assumed to be the one of `url`, even if somebody copied it there. Without a known SHA-256, that
    of the first file is recorded, and a warning says so; from then on every file, also one that is downloaded later,
    must have it. The hash of a file that somebody copied there is recorded without a word. A file that differs from its
    record is renamed to `NAME.broken-N` and downloaded again, with a warning. Several processes may call this for the
    same file: one downloads it, and the others wait.

    Args:
        url: an http or https address.
        path: the file to write; its folder is made if it is missing.
        sha256: the SHA-256 that the content must have, in hexadecimal digits. None: the recorded one, if there is one.
        check: a function that raises a ValueError if a file has the wrong content, such as a log-in page; called when
            an existing file is seen for the first time, and for a new download before it replaces `path`.
        full: True: read the whole file to compare its SHA-256. False: only if its size or modification time changed.
        offline: True: never connect. None: as the environment variable `FLOWPOLICIES_OFFLINE` says.
        transfer: timeouts and number of attempts; None: the defaults of `Transfer`.

    Raises:
        ConnectionError: if the download fails; the message has the URL, the reason, and where to put the file by hand.
        FileNotFoundError: if there is no file and downloads are off.
        ArtifactError: if the existing file is broken, and downloads are off or its folder cannot be written to.
        OSError: if the folder cannot be written to, or the disk is full.
    """
    path = Path(path).expanduser()
    offline = os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0") if offline is None else offline
    if not full and _is_known(path, sha256):
        return path
    read_only = path.is_file() and not os.access(path.parent, os.W_OK)
    quarantined = ""
    with contextlib.nullcontext() if read_only else _lock(path):
        if path.is_file():
            fault = _fault(path, sha256, check, full=full)
            if fault is None:
                if not read_only:
                    _remember(path, url, sha256)
                return path
            quarantined = _set_aside(path, fault, sha256, read_only=read_only, offline=offline)
        if offline:
            raise FileNotFoundError(
                f"no file '{path}', and downloads are off (by the environment variable {OFFLINE_VARIABLE} or by "
                f"argument). Put the file of '{url}' there by hand, or allow downloads."
            )
        _fetch(url, path, sha256, check, transfer or Transfer(), quarantined)
    return path


def _say_trusted(path: Path, record: FileRecord) -> None:
    """Warns that the content of a file is trusted because it is the first one."""
    warnings.warn(
        f"'{path}' was downloaded from '{record.url}'. No SHA-256 of it is known, so its content is trusted this once: "
        f"its SHA-256 {record.sha256} is recorded in '{record_path(path)}', and a file with another one is refused "
        "from now on.",
        stacklevel=5,
    )


def _lock(path: Path) -> BaseFileLock:
    """Acquires the lock of a file and returns it; the folder is made if it is missing."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return lock.acquire().lock
    except OSError as error:
        raise type(error)(
            f"'{path}' is to be downloaded, but its folder cannot be written to ({error}). "
            "Choose another folder, or ask somebody with write access to put the file there."
        ) from error


def _is_known(path: Path, sha256: str | None) -> bool:
    """Whether size and modification time are those of the record; the content is not read."""
    record = read_record(path) if path.is_file() else None
    if record is None or sha256 not in (None, record.sha256):
        return False
    status = path.stat()
    return (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns)


def _fault(path: Path, sha256: str | None, check: Callable[[Path], None] | None, *, full: bool) -> str | None:
    """What is wrong with an existing file, as the end of a sentence about it; None: nothing."""
    record = read_record(path)
    if record is not None and sha256 in (None, record.sha256):
        intact = is_intact(path, record, full=full)
        return None if intact else f"is not what it was on {record.date} (sha256 {record.sha256})"
    return _content_fault(path, "" if sha256 is None else sha256_of(path), sha256, check)


def _remember(path: Path, url: str, sha256: str | None) -> None:
    """Records a file that passed its checks."""
    record = read_record(path)
    if record is None or sha256 not in (None, record.sha256):
        write_record(path, _describe(path, url, sha256))
    elif record.mtime_ns != path.stat().st_mtime_ns:
        write_record(path, dataclasses.replace(record, mtime_ns=path.stat().st_mtime_ns))


def _describe(path: Path, url: str, sha256: str | None) -> FileRecord:
    """The record of a file; its SHA-256 is computed if it is not given."""
    status = path.stat()
    return FileRecord(
        url=url,
        size=status.st_size,
        sha256=sha256 or sha256_of(path),
        mtime_ns=status.st_mtime_ns,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _set_aside(path: Path, fault: str, sha256: str | None, *, read_only: bool, offline: bool) -> str:
    """Renames a broken file and warns of it.

    Returns:
        A sentence that says so, for the error message in case that the new download fails.

    Raises:
        ValueError: if no other file can be downloaded in its place.
    """
    if read_only or offline:
        why = "its folder cannot be written to" if read_only else "downloads are off"
        accept = f", or delete '{path.name}.download.json' to accept it as it is now"
        may_differ = sha256 is None and record_path(path).is_file()
        raise ArtifactError(
            path,
            f"it {fault}, and {why}, so it was not replaced",
            hint=f"Put the right file there{accept if may_differ else ''}.",
        )
    done = f"'{path}' {fault}; it was renamed to '{quarantine(path).name}'"
    warnings.warn(f"{done}, and is downloaded again.", stacklevel=3)
    return f" {done}."


def _fetch(
    url: str, path: Path, sha256: str | None, check: Callable[[Path], None] | None, transfer: Transfer, quarantined: str
) -> None:
    """Downloads a file in as many attempts as needed; `transfer.attempts` limits only those that bring no new bytes.

    A complete file with the wrong content is set aside and fetched once more from its start.

    Args:
        quarantined: a sentence about a broken file that was renamed before, which the error message repeats.
    """
    record = read_record(path)
    expected = sha256 or (record.sha256 if record else None)
    part, clock = PartialFile(path, url, pinned=expected is not None), Clock(transfer)
    most, failures, is_second = 0, 0, False
    while True:
        try:
            part.receive(transfer, clock)
            fault = _place(part, path, url, expected, check)
            if fault is None:
                return
            if sha256 is None and record is not None:
                fault += f", which '{record_path(path)}' recorded on {record.date} (delete that file to accept another)"
            broken = part.set_aside()
            if is_second:
                raise Refused(f"the received file {fault}, for the second time; it was kept as '{broken}'")
            is_second = True
            raise Interrupted(f"the received file {fault}; it was kept as '{broken}'")
        except (Interrupted, Refused) as error:
            failures = 1 if part.size > most else failures + 1
            most = max(most, part.size)
            if isinstance(error, Refused) or failures >= transfer.attempts:
                kept = f" {part.size / 1e6:.1f} MB are kept: the next attempt continues there." if part.size else ""
                raise ConnectionError(
                    f"cannot download '{url}': {error}.{kept}{quarantined} Try again later, or put the file at "
                    f"'{path}' by hand."
                ) from error
        time.sleep(min(transfer.backoff * 2 ** (failures - 1), _MOST_SECONDS_BETWEEN_ATTEMPTS))


def _place(
    part: PartialFile, path: Path, url: str, expected: str | None, check: Callable[[Path], None] | None
) -> str | None:
    """Checks a complete file, and moves it to its place with a record.

    Returns:
        What is wrong with it, as the end of a sentence; None: it is in its place.
    """
    digest = sha256_of(part.path)
    fault = _content_fault(part.path, digest, expected, check)
    if fault is None:
        described = _describe(part.path, url, digest)
        os.replace(part.path, path)
        write_record(path, described)
        part.discard()
        if expected is None:
            _say_trusted(path, described)
    return fault


def _content_fault(path: Path, digest: str, sha256: str | None, check: Callable[[Path], None] | None) -> str | None:
    """What is wrong with the content of a file, as the end of a sentence about it; None: nothing."""
    if sha256 is not None and digest != sha256:
        return f"has sha256 {digest}, expected {sha256}"
    try:
        if check is not None:
            check(path)
    except ValueError as error:
        return f"is not the requested file ({error})"
    return None
