"""Commands of this package, and processes of their own that run them, several side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Job(NamedTuple):
    """A command, and where its output goes."""

    name: str
    words: tuple[str, ...]
    """Of the command line, without the program."""
    log: Path
    """File that its output is appended to."""


class Outcome(NamedTuple):
    """How a job ended."""

    job: Job
    code: int
    seconds: float


def flags(values: Mapping[str, Any]) -> list[str]:
    """Values as words of a command line."""
    words: list[str] = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


def run_side_by_side(jobs: Sequence[Job], parallel: int, report: Callable[[Outcome], None]) -> None:
    """Runs jobs, at most `parallel` at a time, and reports each that ends; one that fails does not stop the others.

    On Ctrl-C, or the SIGTERM of a cluster, the running ones are interrupted once, so that they save what they have, and
    waited for; the second time they are killed.

    Raises:
        ValueError: for less than one at a time.
        KeyboardInterrupt: after Ctrl-C, when all have ended.
    """
    if parallel < 1:
        raise ValueError(f"--parallel is the number of runs side by side and must be at least 1, got {parallel}")
    waiting, running = list(jobs), dict[subprocess.Popen[bytes], tuple[Job, float]]()
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // parallel)), **os.environ}
    # SIGINT as well: a shell starts background jobs with SIGINT ignored.
    previous = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.pop(0)
                running[start(job.words, job.log, environment)] = (job, time.monotonic())
            time.sleep(0.05)
            for process in [process for process in running if process.poll() is not None]:
                job, began = running.pop(process)
                report(Outcome(job, process.returncode, time.monotonic() - began))
    finally:
        stop(list(running))
        for number, handler in previous.items():
            signal.signal(number, handler)


def start(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A process that runs a command of this package and appends its output to a file.

    It is a session of its own: else a terminal's Ctrl-C would reach it besides ours, and two mean: do not save.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flowpolicies", *words]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupts processes so that they save, waits, and kills only on a second Ctrl-C."""
    try:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
