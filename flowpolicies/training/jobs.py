"""Commands of this package in processes of their own, several side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


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


def run_side_by_side(jobs: Sequence[Job], parallel: int, report: Callable[[Outcome], None]) -> None:
    """Runs jobs, at most `parallel` at a time, and reports each that ends; one that fails does not stop the others.

    On Ctrl-C, or the SIGTERM of a cluster, the running ones are interrupted once, so that they save what they have, and
    waited for; the second time they are killed. They are sessions of their own: a terminal's Ctrl-C reaches only this
    process, and an impatient user does not interrupt their saving.

    Raises:
        ValueError: for less than one at a time.
        KeyboardInterrupt: after Ctrl-C, when all have ended.
    """
    if parallel < 1:
        raise ValueError(f"--parallel is the number of runs side by side and must be at least 1, got {parallel}")
    waiting, running = list(jobs), dict[subprocess.Popen[bytes], tuple[Job, float]]()
    threads = max(1, (os.cpu_count() or 1) // parallel)
    # SIGINT as well: a shell starts background jobs with SIGINT ignored.
    previous = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.pop(0)
                running[_start(job, threads)] = (job, time.monotonic())
            time.sleep(0.05)
            for process in [process for process in running if process.poll() is not None]:
                job, start = running.pop(process)
                report(Outcome(job, process.returncode, time.monotonic() - start))
    finally:
        stop(list(running))
        for number, handler in previous.items():
            signal.signal(number, handler)


def _start(job: Job, threads: int) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    command = [sys.executable, "-m", "flowpolicies", *job.words]
    with job.log.open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


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
