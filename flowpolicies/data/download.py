"""One way to fetch files: resumed, checked against a SHA-256, once per machine, whole or not at all.

Beside `data.npz` there may be `data.npz.download.json` (what the file was when it came, see `FileRecord`),
`.data.npz.lock`, `.data.npz.part` (a download that goes on next time), and `data.npz.broken-1` (a file that failed a
check). Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

import requests
from filelock import BaseFileLock, FileLock
from tqdm import tqdm
from urllib3.exceptions import ReadTimeoutError

from flowpolicies.data.files import (
    FileRecord,
    is_intact,
    quarantine,
    read_record,
    record_path,
    sha256_of,
    write_json,
    write_record,
)

OFFLINE_VARIABLE = "FLOWPOLICIES_OFFLINE"
"""Environment variable; with any value but an empty one and 0, nothing is downloaded."""

_BLOCK = 1 << 14  # What a broken connection loses at most.
_MOST_SECONDS_BETWEEN_ATTEMPTS = 30.0
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}


@final
@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Patience with the network."""

    connect_timeout: float = 10.0
    """Seconds to wait for a connection."""
    stall_timeout: float = 60.0
    """Seconds without a byte after which a connection is given up."""
    attempts: int = 4
    """Attempts in a row that bring nothing new, after which the download fails."""
    backoff: float = 1.0
    """Seconds before the second attempt; doubled before each further one, up to 30."""
    progress: bool | None = None
    """Show a progress bar; None: if standard error is a terminal."""


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
    with contextlib.nullcontext() if fixed else _lock(path):
        if path.is_file():
            fault = _fault(path, sha256, check, full=full)
            if fault is None:
                if not fixed:
                    _remember(path, url, sha256)
                return path
            _set_aside(path, fault, sha256, fixed=fixed, offline=offline)
        if offline:
            raise FileNotFoundError(
                f"no file '{path}', and downloads are off ({OFFLINE_VARIABLE}, or by argument). "
                f"Put the file of '{url}' there by hand, or allow downloads."
            )
        _fetch(url, path, sha256, check, transfer or Transfer())
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


def _set_aside(path: Path, fault: str, sha256: str | None, *, fixed: bool, offline: bool) -> None:
    if fixed or offline:
        why = "its folder cannot be written to" if fixed else "downloads are off"
        forget = f", or delete '{path.name}.download.json' to accept it as it is now"
        may_differ = sha256 is None and record_path(path).is_file()
        raise ValueError(
            f"'{path}' {fault}, and {why}, so it is left alone. Put the right file there{forget if may_differ else ''}."
        )
    broken = quarantine(path)
    warnings.warn(f"'{path}' {fault}; it is now '{broken.name}', and downloaded again.", stacklevel=3)


# ---------------------------------------------------------------------------- the network


class _Interrupted(Exception):  # Never leaves this file.
    """Another attempt may bring the rest."""


class _Refused(Exception):  # Never leaves this file.
    """No attempt will."""


def _fetch(url: str, path: Path, sha256: str | None, check: Callable[[Path], None] | None, transfer: Transfer) -> None:
    """Attempts until the file is there; those that bring new bytes are not counted."""
    part = _Part(path, url, pinned=sha256 is not None)
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
                raise _Refused(f"what came {fault}, twice; see '{broken}'")
            wrong = digest
            raise _Interrupted(f"what came {fault}; see '{broken}'")
        except (_Interrupted, _Refused) as error:
            failures = 1 if part.size > most else failures + 1
            most = max(most, part.size)
            if isinstance(error, _Refused) or failures >= transfer.attempts:
                kept = f" {part.size / 1e6:.1f} MB are kept: the next attempt goes on from there." if part.size else ""
                raise ConnectionError(
                    f"cannot download '{url}': {error}.{kept} Try again later, or put the file at '{path}' by hand."
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


@final
class _Part:
    """The bytes that came so far, and which version of the file they belong to."""

    def __init__(self, path: Path, url: str, *, pinned: bool) -> None:
        self.url, self.target = url, path
        self.path, self.notes = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.part.json")
        notes = self._read_notes()
        self.validator, self.total = notes.get("validator"), notes.get("total")
        # Without a validator, and with no hash to find out afterwards, the rest could be that of another version.
        self.pinned = pinned
        if notes.get("url") != url or not (self.validator or pinned):
            self.discard()

    @property
    def size(self) -> int:
        """Bytes that came so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def receive(self, transfer: Transfer) -> None:
        """One attempt; returns if everything is there."""
        if self.total is not None and 0 < self.size == self.total:
            return
        if self.size and not (self.validator or self.pinned):
            self.discard()
        headers = {"Accept-Encoding": "identity", "User-Agent": "flowpolicies"}
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            headers |= {"If-Range": self.validator} if self.validator else {}
        timeout = (transfer.connect_timeout, transfer.stall_timeout)
        try:
            with requests.get(self.url, headers=headers, stream=True, timeout=timeout) as response:
                self._accept(response)
                self._write(response, transfer)
        except requests.RequestException as error:
            failure = _Refused if isinstance(error, ValueError) else _Interrupted  # ValueError: the address is none.
            raise failure(_reason(error, transfer)) from error
        if self.total is not None and self.size != self.total:
            size = self.size
            if size > self.total:
                self.discard()
            raise _Interrupted(f"{size} bytes came instead of {self.total}")

    def _accept(self, response: requests.Response) -> None:
        """Makes ready for the bytes of an answer: to go on, or to start again."""
        code, answer = response.status_code, f"the server answered {response.status_code} {response.reason}"
        if code == 206 and self._goes_on(response):
            return
        if code in (206, 416):
            self.discard()
            raise _Interrupted("the file on the server changed during the download")
        if code != 200:
            raise (_Interrupted if code in _WORTH_ANOTHER_TRY else _Refused)(answer)
        self.discard()
        is_plain = response.headers.get("Content-Encoding", "identity") == "identity"
        length = response.headers.get("Content-Length", "")
        self.validator = _validator(response) if is_plain else None
        self.total = int(length) if is_plain and length.isdigit() else None
        write_json(self.notes, {"url": self.url, "validator": self.validator, "total": self.total})

    def _goes_on(self, response: requests.Response) -> bool:
        """Whether a partial answer is the rest of the version that we have the beginning of."""
        span = re.match(r"bytes (\d+)-(?:\d+/(\d+))?", response.headers.get("Content-Range", ""))
        if span is None or int(span[1]) != self.size:
            return False
        if self.total is None and span[2]:  # The rest may come in several answers.
            self.total = int(span[2])
        validator = _validator(response)
        return None in (validator, self.validator) or validator == self.validator

    def _write(self, response: requests.Response, transfer: Transfer) -> None:
        before = self.size
        rest = 0 if self.total is None else self.total - before
        if (free := shutil.disk_usage(self.path.parent).free) < rest:
            message = f"'{self.url}' needs {rest / 1e9:.2f} GB, but '{self.path.parent}' has {free / 1e9:.2f} GB left"
            raise OSError(errno.ENOSPC, message)
        hidden = None if transfer.progress is None else not transfer.progress
        scale: dict[str, Any] = {"unit": "B", "unit_scale": True}
        try:
            with (
                open(self.path, "ab") as file,
                tqdm(total=self.total, initial=before, desc=self.target.name, disable=hidden, **scale) as bar,
            ):
                for block in response.iter_content(_BLOCK):
                    file.write(block)
                    bar.update(len(block))
                file.flush()
                os.fsync(file.fileno())
        except requests.RequestException:
            raise
        except OSError as error:
            message = f"cannot write '{self.path}' while '{self.url}' is downloaded: {error.strerror}"
            raise OSError(error.errno, f"{message}. Make room, or put the file at '{self.target}' by hand") from error

    def _read_notes(self) -> dict[str, Any]:
        try:
            notes = json.loads(self.notes.read_text())
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def set_aside(self) -> str:
        """Keeps what came as a broken version of the file; returns its name."""
        broken = quarantine(self.target, self.path)
        self.discard()
        return broken.name

    def discard(self) -> None:
        """Forgets what came."""
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)
        self.validator = self.total = None


def _validator(response: requests.Response) -> str | None:
    """What tells versions of the file apart; a weak ETag may stand for different bytes."""
    tag: str | None = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _reason(error: requests.RequestException, transfer: Transfer) -> str:
    """What happened, without the address, which the message has already."""
    inner = error.args[0] if error.args else error
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {transfer.connect_timeout:g} s"
    if isinstance(error, requests.ReadTimeout) or isinstance(inner, ReadTimeoutError):
        return f"nothing came for {transfer.stall_timeout:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    return str(getattr(inner, "reason", None) or inner).split("): ", 1)[-1]
