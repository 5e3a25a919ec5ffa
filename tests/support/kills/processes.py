"""Processes that run one command line, and are killed. They are forked from this one, which has imported everything."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from flowpolicies.cli import main

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
FILE_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "shutil.rmtree", "os.link")


class Kill(NamedTuple):
    """When a process is killed."""

    seconds: float | None = None
    """Time since its start, in seconds; None: at a file operation instead."""
    operation: int = 0
    """Number of the file operation in the run folder before which it is killed."""
    delay: float = 0.0
    """Time in seconds between the beginning of this operation and the kill."""

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"after {self.seconds:.3f} s"
        return (
            f"{self.delay * 1e3:.2f} ms after operation {self.operation}"
            if self.delay
            else f"at operation {self.operation}"
        )


class End(NamedTuple):
    """How a process ended."""

    code: int
    """Exit code; minus the number of the signal that killed it."""
    operations: list[str]
    """The file operations in the run folder, if the process was not killed."""
    seconds: float


class _Operations:
    """Audit hook that counts what a process does to the files of a folder, and dies or tells at a given number."""

    def __init__(self, folder: Path, kill: Kill | None, tell: int) -> None:
        self.folder, self.kill, self.tell, self.count, self.seen = os.fspath(folder), kill, tell, 0, list[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(args[0], str | os.PathLike) or not (args[2] or 0) & WRITES:
                return
        elif event not in FILE_EVENTS:
            return
        path = os.path.abspath(os.fspath(args[0])) if isinstance(args[0], str | os.PathLike) else ""
        if not path.startswith(self.folder):
            return
        self.count += 1
        self.seen.append(f"{event} {os.path.relpath(path, self.folder)}")
        if self.kill is not None and self.kill.seconds is None and self.count == self.kill.operation:
            if self.kill.delay == 0.0:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(self.tell, b"k")


def _child(words: Sequence[str], folder: Path, log: Path, kill: Kill | None, tell: int) -> int:
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    tqdm._instances.clear()  # The bar belongs to the parent.
    for seed in (random.seed, np.random.seed):  # A new process does not share the state of these with its parent.
        seed(int.from_bytes(os.urandom(4), "little"))
    torch.seed()
    operations = _Operations(folder, kill, tell)
    code = main(words)
    sys.stdout.flush()
    os.write(tell, ("\n".join(["", *operations.seen])).encode())
    return code


def run(words: Sequence[str], folder: Path, log: Path, kill: Kill | None = None) -> End:
    """Runs a command line of flowpolicies that writes to `folder`, and kills it."""
    receive, send = os.pipe()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.close(receive)
            code = _child(words, folder, log, kill, send)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(send)
    told = _wait(receive, None if kill is None or kill.seconds is None else start + kill.seconds, pid, kill)
    os.close(receive)
    return End(_code(os.waitpid(pid, 0)[1]), told.decode().split("\n")[1:], time.monotonic() - start)


def _wait(receive: int, at: float | None, pid: int, kill: Kill | None) -> bytes:
    """Reads until the process has ended, and kills it when it is time."""
    told = b""
    while True:
        left = None if at is None else max(0.0, at - time.monotonic())
        if not select.select([receive], [], [], left)[0]:
            os.kill(pid, signal.SIGKILL)
            at = None
            continue
        data = os.read(receive, 2**16)
        if data == b"k" and kill is not None and not told:
            time.sleep(kill.delay)
            os.kill(pid, signal.SIGKILL)
        elif not data:
            return told
        told += data


def _code(status: int) -> int:
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def run_fresh(words: Sequence[str], log: Path, seconds: float | None = None) -> End:
    """Runs a command line in a new interpreter, whose strings have other hashes."""
    start = time.monotonic()
    with open(log, "ab") as file:
        command = [sys.executable, "-P", "-m", "flowpolicies", *words]
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "PYTHONHASHSEED": "random"})
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return End(process.returncode, [], time.monotonic() - start)


def in_child(function: Callable[[], list[str]]) -> list[str]:
    """The lines that a function returns, called in a forked process, so that this one never computes with torch."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(receive)
            try:
                lines = function()
            except BaseException:
                lines = traceback.format_exc().strip().split("\n")
            with os.fdopen(send, "w") as file:
                file.write("\n".join(line.replace("\n", " ") for line in lines))
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text.split("\n") if text else []
