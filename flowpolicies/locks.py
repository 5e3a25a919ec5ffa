"""A lock that lets one process at a time write to a folder, and that tells the others which process that is."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self, final

from flowpolicies.files import naming_lack_of_space

try:
    import fcntl
except ImportError:  # Windows, where two processes that start at the same moment are not kept apart.
    fcntl = None  # type: ignore[assignment]

HEARTBEAT_SECONDS = 30.0
"""Seconds between two signs of life of the process that holds a lock: it renews the time of the file."""

DEAD_AFTER_SECONDS = 600.0
"""Seconds without a sign of life after which the lock of a process on another host is stale."""

REBOOTED_AFTER_SECONDS = 90.0
"""The same for a host of the same name, which was rebooted, or a container of the same name, which was restarted."""


@final
class FolderInUseError(RuntimeError):
    """Another process is writing to the folder."""


class Holder(NamedTuple):
    """The process that a lock file names."""

    who: str
    """Its id, its host, and since when it holds the lock."""
    is_here: bool
    """Whether it could be seen from this process."""
    is_alive: bool
    """Whether it runs; if it cannot be seen, whether its latest sign of life is recent."""
    silence: float
    """Seconds since its latest sign of life."""
    limit: float
    """Seconds without a sign of life after which a process that cannot be seen counts as dead."""


@final
class FolderLock:
    """Context manager that holds the lock of a folder, a file with the host, id and start of the process.

    A lock whose process has ended is stale, and is taken over. On the same host the process is looked up by its id and
    its time of start, as ids are used again. A process on another host, or in another container, cannot be looked up;
    it renews the time of the file every `HEARTBEAT_SECONDS`, and counts as dead after `DEAD_AFTER_SECONDS` without
    (`REBOOTED_AFTER_SECONDS` if its host has the name of this one).

    Args:
        path: path of the lock file. Folders that are missing are made, and removed on exit if they are empty then.
        notice: called with a sentence when a stale lock is taken over.

    Raises:
        FolderInUseError: on entry, if another process holds the lock, or this one holds it already.
    """

    def __init__(self, path: Path, notice: Callable[[str], None] = lambda text: None) -> None:
        self.path, self._notice = path, notice
        self._own: dict[str, Any] = {}
        self._released = threading.Event()
        self._made_folders: list[Path] = []

    def __enter__(self) -> Self:
        self._made_folders = [folder for folder in self.path.parents if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        own = {**_this_process(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        with naming_lack_of_space(self.path), _exclusive(self.path) as descriptor:
            holder = _read(descriptor)
            if holder is not None:
                self._refuse_or_take_over(holder, descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, (json.dumps(own) + "\n").encode(), 0)
        self._own = own
        self._released.clear()
        threading.Thread(target=self._beat, name="lock of the run folder", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        if self._own["pid"] == os.getpid():  # A forked child that leaves the block does not hold the lock.
            with suppress(OSError), _exclusive(self.path) as descriptor:
                if _read(descriptor) == self._own:
                    self.path.unlink()
        with suppress(OSError):  # Only an empty folder can be removed.
            for folder in self._made_folders:
                folder.rmdir()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):
                os.utime(self.path)

    def holder(self) -> Holder | None:
        """The process that the lock file names, dead or alive; None if there is no such file. Changes nothing."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            content = _read(descriptor)
            silence = max(0.0, time.time() - os.fstat(descriptor).st_mtime)
            return None if content is None else _judge(content, silence)
        finally:
            os.close(descriptor)

    def _refuse_or_take_over(self, content: dict[str, Any], descriptor: int) -> None:
        holder = _judge(content, _age(self.path, descriptor))
        if holder.is_alive and holder.is_here:
            raise FolderInUseError(
                f"'{self.path.parent}' is being written by another process: {holder.who}. Wait until it has ended, "
                f"stop it, or choose another folder. ({self.path.name} in the folder names the process.)"
            )
        if holder.is_alive:
            raise FolderInUseError(
                f"'{self.path.parent}' is being written by a process that cannot be seen from here: {holder.who}; its "
                f"last sign of life was {holder.silence:.0f} s ago. It counts as dead after {holder.limit:.0f} s "
                f"without one. If you know that it has ended, delete '{self.path}'."
            )
        end = "has ended" if holder.is_here else f"gave no sign of life for {holder.silence:.0f} s"
        self._notice(f"The lock of '{self.path.parent}' was left behind by {holder.who}, which {end}; taken over.")


@contextmanager
def _exclusive(path: Path) -> Iterator[int]:
    """Descriptor of the file, which is made if it is missing, while no other process is in this block for it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            if fcntl is not None:
                with suppress(OSError):  # Some network file systems have no such locks.
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_same(path, descriptor):
                continue  # Its holder has deleted the file in the meantime.
            yield descriptor
            return
        finally:
            os.close(descriptor)


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read(descriptor: int) -> dict[str, Any] | None:
    """What a lock file says; None if it is new, or its process was killed while it wrote the file."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        fields = {"host": str, "pid": int, "since": str, "started": str | None, "boot": str | None, "space": str | None}
        return holder if all(isinstance(holder[name], kind) for name, kind in fields.items()) else None
    except (ValueError, KeyError, TypeError):
        return None


def _judge(content: dict[str, Any], silence: float) -> Holder:
    """Whether the process that a lock file names lives.

    Args:
        content: content of the file.
        silence: seconds since the process renewed the file.
    """
    who = f"process {content['pid']} on {content['host']}, since {content['since']}"
    limit = REBOOTED_AFTER_SECONDS if content["host"] == socket.gethostname() else DEAD_AFTER_SECONDS
    is_here = _is_here(content)
    is_alive = _start_of(content["pid"]) == content["started"] if is_here else silence < limit
    return Holder(who, is_here, is_alive, silence, limit)


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _start_of(pid), **_place()}


def _place() -> dict[str, str | None]:
    """What tells hosts and containers with the same name apart: the boot, and the name space of process ids."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    found: dict[str, str | None] = {"boot": None, "space": None}
    with suppress(OSError):
        found = {"boot": boot.read_text().strip(), "space": os.readlink(space)}
    return found


def _is_here(holder: dict[str, Any]) -> bool:
    """Whether a process could be seen from this one: it is of the same host, boot and container."""
    own = {"host": socket.gethostname(), **_place()}
    return own["space"] is not None and all(holder[name] == value for name, value in own.items())


def _start_of(pid: int) -> str | None:
    """When a process started, in clock ticks since the boot; None if there is no such process, or no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()  # The name before it may contain spaces.
    return None if state in "ZX" else fields[18]


def _age(path: Path, descriptor: int) -> float:
    """Seconds since the file was renewed, by the clock of its file system."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.now")
    try:
        beside.touch()
        now = beside.stat().st_mtime
    except OSError:
        now = time.time()
    finally:
        beside.unlink(missing_ok=True)
    return max(0.0, now - os.fstat(descriptor).st_mtime)
