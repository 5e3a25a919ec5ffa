"""One way to fetch files: resumed, checked against a SHA-256, once per machine, whole or not at all.

Beside `data.npz` there may be `data.npz.download.json` (what the file was when it came, see `FileRecord`),
`.data.npz.lock`, `.data.npz.part` (a download that goes on next time), and `data.npz.broken-1` (a file that failed a
check). Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`).
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

from flowpolicies.data.downloads.files import (
    FileRecord,
    is_intact,
    quarantine,
    read_record,
    record_path,
    sha256_of,
    write_record,
)
from flowpolicies.data.downloads.transfer import Interrupted, Part, Refused, Transfer

OFFLINE_VARIABLE = "FLOWPOLICIES_OFFLINE"
"""Environment variable; with any value but an empty one and 0, nothing is downloaded."""

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
    """The file of `url` at `path`, downloaded if it is not there, and checked in any case.

    A file that is there is taken to be the one of `url`, whoever put it there; from the first time on its SHA-256 is
    known, and a file that differs from it is renamed to `NAME.broken-N` and downloaded again, with a warning. Many
    processes may ask at once: one downloads, the others wait.

    Args:
        url: an http or https address.
        path: where the file goes; its folder is made if it is missing.
        sha256: what the content must be; None: what it was the first time.
        check: raises a ValueError if a file cannot be what was asked for (a log-in page, say); called when a file is
            seen for the first time, and for a new download before it takes the place of `path`.
        full: read the whole file to check it; otherwise only if its size or time of modification changed.
        offline: never connect; None: as the environment variable `FLOWPOLICIES_OFFLINE` says.
        transfer: patience with the network.

    Raises:
        ConnectionError: if it cannot be downloaded; it names the URL, what happened, and where to put the file.
        FileNotFoundError: if it is not there, offline.
        ValueError: if it is broken, and offline or in a folder that cannot be written to.
        OSError: if the folder cannot be written to, or the disk is full.
    """
    path = Path(path).expanduser()
    offline = os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0") if offline is None else offline
    if not full and _is_known(path, sha256):
        return path
    fixed = path.is_file() and not os.access(path.parent, os.W_OK)
    aside = ""
    with contextlib.nullcontext() if fixed else _lock(path):
        if path.is_file():
            fault = _fault(path, sha256, check, full=full)
            if fault is None:
                if not fixed:
                    _remember(path, url, sha256)
                return path
            aside = _set_aside(path, fault, sha256, fixed=fixed, offline=offline)
        if offline:
            raise FileNotFoundError(
                f"no file '{path}', and downloads are off ({OFFLINE_VARIABLE}, or by argument). "
                f"Put the file of '{url}' there by hand, or allow downloads."
            )
        _fetch(url, path, sha256, check, transfer or Transfer(), aside)
    return path


def _lock(path: Path) -> BaseFileLock:
    """The lock of a file, held, in a folder that is made if it is missing."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return lock.acquire().lock
    except OSError as error:
        raise type(error)(
            f"'{path}' is to be downloaded, but its folder cannot be written to ({error}). "
            "Choose another folder, or let somebody who may put the file there."
        ) from error


def _is_known(path: Path, sha256: str | None) -> bool:
    """Whether file and record agree at a glance."""
    record = read_record(path) if path.is_file() else None
    if record is None or sha256 not in (None, record.sha256):
        return False
    status = path.stat()
    return (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns)


def _fault(path: Path, sha256: str | None, check: Callable[[Path], None] | None, *, full: bool) -> str | None:
    """What is wrong with a file that is there, or None."""
    record = read_record(path)
    if record is not None and sha256 in (None, record.sha256):
        intact = is_intact(path, record, full=full)
        return None if intact else f"is not what it was on {record.date} (sha256 {record.sha256})"
    return _content_fault(path, "" if sha256 is None else sha256_of(path), sha256, check)


def _remember(path: Path, url: str, sha256: str | None) -> None:
    """Records a file that was found to be right."""
    record = read_record(path)
    if record is None or sha256 not in (None, record.sha256):
        write_record(path, _describe(path, url, sha256))
    elif record.mtime_ns != path.stat().st_mtime_ns:
        write_record(path, dataclasses.replace(record, mtime_ns=path.stat().st_mtime_ns))


def _describe(path: Path, url: str, sha256: str | None) -> FileRecord:
    status = path.stat()
    return FileRecord(
        url=url,
        size=status.st_size,
        sha256=sha256 or sha256_of(path),
        mtime_ns=status.st_mtime_ns,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _set_aside(path: Path, fault: str, sha256: str | None, *, fixed: bool, offline: bool) -> str:
    """Renames a broken file, or refuses to; what was done, for an error that may follow."""
    if fixed or offline:
        why = "its folder cannot be written to" if fixed else "downloads are off"
        forget = f", or delete '{path.name}.download.json' to accept it as it is now"
        may_differ = sha256 is None and record_path(path).is_file()
        raise ValueError(
            f"'{path}' {fault}, and {why}, so it is left alone. Put the right file there{forget if may_differ else ''}."
        )
    done = f"'{path}' {fault}; it is now '{quarantine(path).name}'"
    warnings.warn(f"{done}, and downloaded again.", stacklevel=3)
    return f" {done}."


def _fetch(
    url: str, path: Path, sha256: str | None, check: Callable[[Path], None] | None, transfer: Transfer, aside: str
) -> None:
    """Attempts until the file is there; those that bring new bytes are not counted. `aside` ends up in the error."""
    part = Part(path, url, pinned=sha256 is not None)
    most, failures, wrong = 0, 0, ""
    while True:
        try:
            part.receive(transfer)
            digest = sha256_of(part.path)
            fault = _content_fault(part.path, digest, sha256, check)
            if fault is None:
                record = _describe(part.path, url, digest)
                os.replace(part.path, path)
                write_record(path, record)
                part.discard()
                return
            broken = part.set_aside()
            if digest == wrong:
                raise Refused(f"what came {fault}, twice; see '{broken}'")
            wrong = digest
            raise Interrupted(f"what came {fault}; see '{broken}'")
        except (Interrupted, Refused) as error:
            failures = 1 if part.size > most else failures + 1
            most = max(most, part.size)
            if isinstance(error, Refused) or failures >= transfer.attempts:
                kept = f" {part.size / 1e6:.1f} MB are kept: the next attempt goes on from there." if part.size else ""
                raise ConnectionError(
                    f"cannot download '{url}': {error}.{kept}{aside} Try again later, or put the file at '{path}' by "
                    "hand."
                ) from error
        time.sleep(min(transfer.backoff * 2 ** (failures - 1), _MOST_SECONDS_BETWEEN_ATTEMPTS))


def _content_fault(path: Path, digest: str, sha256: str | None, check: Callable[[Path], None] | None) -> str | None:
    if sha256 is not None and digest != sha256:
        return f"has sha256 {digest}, expected {sha256}"
    try:
        if check is not None:
            check(path)
    except ValueError as error:
        return f"is not the file ({error})"
    return None
