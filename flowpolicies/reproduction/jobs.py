"""Runs commands of this package in child processes, several of them side by side."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, final

from flowpolicies.signals import terminate


class Job(NamedTuple):
    """Commands that run one after another; the first one that fails ends the job."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    """Command lines of `flowpolicies`, each without the program's name."""
    log: Path
    """File that the output of the commands is appended to."""


class Outcome(NamedTuple):
    """How a job ended."""

    job: Job
    code: int
    """Exit code of the last command that ran: 0 if the whole job succeeded."""
    seconds: float
    """Duration of the job."""
    core_seconds: float
    """Processor time of its commands, and of the processes that these waited for."""


def flags(values: Mapping[str, Any]) -> list[str]:
    """Field names and values as words of a command line, such as ["--batch-size", "256"]."""
    words: list[str] = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


@final
class _Running:
    """A job that has been started."""

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        self.job, self._environment, self._began = job, environment, time.monotonic()
        self._left, self._core_seconds = list(job.commands), 0.0
        self._next()

    def _next(self) -> None:
        self.process = start(self._left.pop(0), self.job.log, self._environment)

    def has_ended(self) -> bool:
        """Whether the job is over; starts its next command if one has succeeded and there is another."""
        before = _core_seconds_of_children()
        code = self.process.poll()  # A process that has ended is counted among the children from now on.
        self._core_seconds += _core_seconds_of_children() - before
        if code == 0 and self._left:
            self._next()
            return False
        return code is not None

    def outcome(self) -> Outcome:
        """How the job ended."""
        return Outcome(self.job, self.process.returncode, time.monotonic() - self._began, self._core_seconds)


def _core_seconds_of_children() -> float:
    """Processor time of all child processes that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_side_by_side(
    jobs: Sequence[Job],
    parallel: int,
    report: Callable[[Outcome], None],
    *,
    threads: int | None = None,
    starting: Callable[[Job], None] = lambda job: None,
    watch: Callable[[], None] = lambda: None,
    watch_seconds: float = 0.05,
) -> None:
    """Runs jobs, at most `parallel` at a time, in the order in which they are given.

    A job that fails does not stop the others. On Ctrl-C, on the SIGTERM of a cluster, and if a callback raises, the
    running processes are interrupted once, so that they save what they have, and waited for. A second Ctrl-C kills
    them.

    Args:
        parallel: number of jobs that run at the same time.
        report: called with the outcome of each job that ends.
        threads: value of OMP_NUM_THREADS in the processes; None: that of the environment, or an equal share of the
            cores if it has none.
        starting: called with each job before its first command.
        watch: called every `watch_seconds` while jobs are running.

    Raises:
        ValueError: if `parallel` is less than 1.
        KeyboardInterrupt: after Ctrl-C, when all processes have ended.
    """
    check_parallel(parallel)
    share = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // parallel))}
    environment = share | os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    waiting, running = list(jobs), list[_Running]()
    with _interrupted_by_signals():
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    starting(waiting[0])
                    running.append(_Running(waiting.pop(0), environment))
                time.sleep(watch_seconds)
                for one in [one for one in running if one.has_ended()]:
                    running.remove(one)
                    report(one.outcome())
                watch()
        finally:
            stop([one.process for one in running])


def check_parallel(parallel: int) -> None:
    """Raises a ValueError unless a number of runs side by side is at least 1."""
    if parallel < 1:
        raise ValueError(f"--parallel is the number of runs side by side and must be at least 1, got {parallel}")


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Makes SIGINT raise KeyboardInterrupt, as a shell starts background jobs with SIGINT ignored, and SIGTERM, too."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminate}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def start(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts a process that runs a command of this package and appends its output to a file.

    The process gets a session of its own. Otherwise Ctrl-C in a terminal would reach it twice, from the terminal and
    from `stop`, and a second interrupt means that it ends without saving.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flowpolicies", *words]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupts processes so that they save, waits for them, and kills them on a second Ctrl-C."""
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
