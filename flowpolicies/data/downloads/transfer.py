"""Attempts to receive a file over HTTP: each continues where the last one stopped, and versions are never mixed."""

from __future__ import annotations

import errno
import json
import os
import queue
import re
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from flowpolicies.data.downloads.files import quarantine
from flowpolicies.files import write_json

_BLOCK = 1 << 14
"""Bytes per write, the most that is lost when a connection breaks."""

SECONDS_VARIABLE = "FLOWPOLICIES_DOWNLOAD_SECONDS"
"""Environment variable with the greatest number of seconds of a whole download; without it, `Transfer.least_rate`
decides."""

_TEMPORARY_FAILURES = {408, 425, 429, 500, 502, 503, 504}
"""HTTP status codes after which another attempt may succeed."""


@final
@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Timeouts and number of attempts of a download."""

    connect_timeout: float = 10.0
    """Seconds to wait for a connection."""
    stall_timeout: float = 60.0
    """Seconds without a byte after which a connection is closed and another attempt is made."""
    attempts: int = 4
    """Number of attempts in a row without a new byte after which the download fails."""
    backoff: float = 1.0
    """Seconds to wait before the second attempt; doubled before each further one, up to 30."""
    least_rate: float = 10_000.0
    """Mean number of bytes per second below which a download fails as a whole, however steadily bytes arrive."""
    grace: float = 300.0
    """Seconds from the start of the download before `least_rate` counts."""
    seconds: float | None = None
    """Seconds that all attempts of a download together may take, instead of `grace` and `least_rate`; None: the value
    of the environment variable `FLOWPOLICIES_DOWNLOAD_SECONDS`, if it is set."""
    progress: bool | None = None
    """Whether to show a progress bar; None: if standard error is a terminal."""


@final
class Clock:
    """The time that all attempts of a download have taken.

    Args:
        transfer: the limits.

    Raises:
        ValueError: if `FLOWPOLICIES_DOWNLOAD_SECONDS` is not a number above 0.
    """

    def __init__(self, transfer: Transfer) -> None:
        self._transfer, self._start, self._received = transfer, time.monotonic(), 0
        self._seconds = _seconds_of_environment() if transfer.seconds is None else transfer.seconds

    def count(self, received: int) -> None:
        """Counts bytes that arrived.

        Raises:
            Refused: if the whole download takes too long.
        """
        self._received += received
        allowed = self._transfer.grace + self._received / self._transfer.least_rate
        allowed = allowed if self._seconds is None else self._seconds
        elapsed = time.monotonic() - self._start
        if elapsed > allowed:
            raise Refused(
                f"only {self._received:,} bytes arrived in {elapsed:.0f} s, and these may take {allowed:.0f} s in all. "
                f"The environment variable {SECONDS_VARIABLE} allows another number of seconds"
            )


def _seconds_of_environment() -> float | None:
    text = os.environ.get(SECONDS_VARIABLE)
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(f"{SECONDS_VARIABLE} is {text!r}, and must be a number of seconds above 0.")
    return seconds


class Interrupted(Exception):
    """An attempt failed, and another one may succeed."""


class Refused(Exception):
    """An attempt failed, and no further one can succeed."""


@final
class PartialFile:
    """The bytes of a file that were received so far, and the version of the file that they belong to.

    Args:
        path: the file to be downloaded; the bytes are kept beside it until they are complete.
        url: an http or https address.
        pinned: whether the SHA-256 of the whole file is known, so that mixed versions would be noticed afterwards.
    """

    def __init__(self, path: Path, url: str, *, pinned: bool) -> None:
        self.url, self.target = url, path
        self.path, self.notes = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.part.json")
        notes = self._read_notes()
        self.validator, self.total = notes.get("validator"), notes.get("total")
        self.pinned = pinned
        # Without a validator (an ETag or a date) and without a hash, the rest could belong to another version of the
        # file, and nobody would notice.
        if notes.get("url") != url or not (self.validator or pinned):
            self.discard()

    @property
    def size(self) -> int:
        """Number of bytes that were received so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def receive(self, transfer: Transfer, clock: Clock) -> None:
        """Makes one attempt, and returns if the file is complete.

        Args:
            transfer: the time limits of the attempt.
            clock: the time of all attempts.

        Raises:
            Interrupted, Refused: if the attempt failed.
            OSError: if the bytes cannot be written.
        """
        if self.total is not None and 0 < self.size == self.total:
            return
        if self.size and not (self.validator or self.pinned):
            self.discard()
        headers = {"Accept-Encoding": "identity", "User-Agent": "flowpolicies"}
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            headers |= {"If-Range": self.validator} if self.validator else {}
        clock.count(0)
        try:
            with _request(self.url, headers, transfer) as response:
                self._accept(response)
                self._write(response, transfer, clock)
        except requests.RequestException as error:
            is_invalid_url = isinstance(error, ValueError)
            raise (Refused if is_invalid_url else Interrupted)(_reason(error, transfer)) from error
        if self.total is not None and self.size != self.total:
            size = self.size
            if size > self.total:
                self.discard()
            raise Interrupted(f"{size} bytes were received instead of {self.total}")

    def _accept(self, response: requests.Response) -> None:
        """Prepares for the bytes of an answer, which continue the file or start again."""
        code, answer = response.status_code, f"the server answered {response.status_code} {response.reason}"
        if code == 206 and self._continues(response):
            return
        if code in (206, 416):
            self.discard()
            raise Interrupted("the file on the server changed during the download")
        if code != 200:
            raise (Interrupted if code in _TEMPORARY_FAILURES else Refused)(answer)
        self.discard()
        is_plain = response.headers.get("Content-Encoding", "identity") == "identity"
        length = response.headers.get("Content-Length", "")
        self.validator = _validator(response) if is_plain else None
        self.total = int(length) if is_plain and length.isdigit() else None
        write_json(self.notes, {"url": self.url, "validator": self.validator, "total": self.total})

    def _continues(self, response: requests.Response) -> bool:
        """Whether a partial answer is the rest of the version whose beginning was received."""
        span = re.match(r"bytes (\d+)-(?:\d+/(\d+))?", response.headers.get("Content-Range", ""))
        if span is None or int(span[1]) != self.size:
            return False
        if self.total is None and span[2]:  # A server may send the rest in several answers.
            self.total = int(span[2])
        validator = _validator(response)
        return None in (validator, self.validator) or validator == self.validator

    def _write(self, response: requests.Response, transfer: Transfer, clock: Clock) -> None:
        """Appends the bytes of an answer to the file."""
        before = self.size
        rest = 0 if self.total is None else self.total - before
        if (free := shutil.disk_usage(self.path.parent).free) < rest:
            message = f"'{self.url}' needs {rest / 1e9:.2f} GB, but '{self.path.parent}' has {free / 1e9:.2f} GB free"
            raise OSError(errno.ENOSPC, message)
        hidden = None if transfer.progress is None else not transfer.progress
        scale: dict[str, Any] = {"unit": "B", "unit_scale": True}
        try:
            with (
                open(self.path, "ab") as file,
                tqdm(total=self.total, initial=before, desc=self.target.name, disable=hidden, **scale) as bar,
            ):
                # `read1` returns what has arrived. `iter_content` would wait for a whole block, for as long as a
                # server sends a byte now and then.
                while block := response.raw.read1(_BLOCK, decode_content=True):
                    file.write(block)
                    bar.update(len(block))
                    clock.count(len(block))
                file.flush()
                os.fsync(file.fileno())
        except HTTPError as error:
            kind = (
                requests.exceptions.ChunkedEncodingError
                if isinstance(error, ProtocolError)
                else requests.ConnectionError
            )
            raise kind(error) from error
        except requests.RequestException:
            raise
        except OSError as error:
            message = f"cannot write '{self.path}' while '{self.url}' is downloaded: {error.strerror}"
            advice = f"Free some disk space, or put the file at '{self.target}' by hand"
            raise OSError(error.errno, f"{message}. {advice}") from error

    def _read_notes(self) -> dict[str, Any]:
        try:
            notes = json.loads(self.notes.read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(notes, dict):
            return {}
        kinds = {"url": str, "validator": str, "total": int}
        return {key: notes[key] for key, kind in kinds.items() if isinstance(notes.get(key), kind)}

    def set_aside(self) -> str:
        """Renames the received file to a free `NAME.broken-N`, and returns that name."""
        broken = quarantine(self.target, self.path)
        self.discard()
        return broken.name

    def discard(self) -> None:
        """Deletes the received bytes and the notes about them."""
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)
        self.validator = self.total = None


def _request(url: str, headers: dict[str, str], transfer: Transfer) -> requests.Response:
    """The answer to a request, with its content still to be read.

    It is made by a thread of its own, because the time limits of sockets start anew with every byte, and a server could
    send the header of its answer for days.
    """
    answers: queue.SimpleQueue[requests.Response | requests.RequestException] = queue.SimpleQueue()
    timeout = (transfer.connect_timeout, transfer.stall_timeout)

    def ask() -> None:
        try:
            answers.put(requests.get(url, headers=headers, stream=True, timeout=timeout))
        except requests.RequestException as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        # A name may have several addresses, each of which is tried, and an answer may lead to another address.
        answer = answers.get(timeout=3 * sum(timeout))
    except queue.Empty:
        raise Interrupted(f"no answer within {3 * sum(timeout):g} s") from None
    if isinstance(answer, requests.RequestException):
        raise answer
    return answer


def _validator(response: requests.Response) -> str | None:
    """An ETag or a date that differs between versions of the file; a weak ETag may be the same for different bytes."""
    tag: str | None = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _reason(error: requests.RequestException, transfer: Transfer) -> str:
    """The reason of a failure, without the address, which the message names already."""
    inner = error.args[0] if error.args else error
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {transfer.connect_timeout:g} s"
    if isinstance(error, requests.ReadTimeout) or isinstance(inner, ReadTimeoutError):
        return f"no data arrived for {transfer.stall_timeout:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was interrupted"
    return str(getattr(inner, "reason", None) or inner).split("): ", 1)[-1]
