"""Campaigns: cases run in processes of their own, with limits of memory and time, and what became of them."""

from __future__ import annotations

import codecs
import contextlib
import gc
import json
import os
import selectors
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fuzz import archives, seeds
from fuzz.cases import Case, clean, make_case, make_mild
from fuzz.folders import deflated_chunk
from fuzz.limits import MAX_SECONDS, MAX_WALL_SECONDS, Watch, limit_memory
from fuzz.pickles import SENTINEL

from flowpolicies.data.sources import SOURCES

CHUNK = 50
"""Number of cases that one process runs; then a new one is forked, whose memory is that of the beginning."""

GOOD = ("loaded", "refused", "missing")
"""Outcomes that are as they should be; `missing` is a file or a package that is not there."""


class Result(NamedTuple):
    """What became of a case."""

    index: int
    kind: str
    outcome: str
    what: str
    detail: str
    seconds: float

    @property
    def is_good(self) -> bool:
        return self.outcome in GOOD


class Report:
    """Counts of outcomes, and the results that are not good."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.bad: list[Result] = []
        self.slowest: dict[str, float] = defaultdict(float)

    def add(self, result: Result) -> None:
        self.counts[result.kind][result.outcome] += 1
        self.slowest[result.kind] = max(self.slowest[result.kind], result.seconds)
        if not result.is_good:
            self.bad.append(result)

    def __str__(self) -> str:
        outcomes = sorted(
            {outcome for counts in self.counts.values() for outcome in counts}, key=lambda o: (o not in GOOD, o)
        )
        lines = [["kind", "cases", *outcomes, "slowest"]]
        for kind, counts in self.counts.items():
            numbers = [str(counts[outcome]) for outcome in outcomes]
            lines.append([kind, str(sum(counts.values())), *numbers, f"{self.slowest[kind]:.2f} s"])
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
        )


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def ran_out_of_memory(error: BaseException) -> bool:
    return any(
        isinstance(e, MemoryError) or "t allocate memory" in str(e) or "Unable to allocate" in str(e)
        for e in chain(error)
    )


def judge(case: Case, error: BaseException | None, seen: list[str], seconds: float) -> tuple[str, str]:
    """The outcome, and what there is to say of it."""
    if Path(SENTINEL).exists():
        return "executed", "the sentinel file exists"
    if seen:
        return "watched", "; ".join(dict.fromkeys(seen))
    if error is not None and ran_out_of_memory(error):
        return "memory", "".join(traceback.format_exception(error))
    if seconds > MAX_SECONDS:
        return "slow", f"{seconds:.1f} s of processor time"
    if error is None:
        return ("accepted", "it must be refused") if case.must_refuse else ("loaded", "")
    if not isinstance(error, case.allowed):
        return "raised", "".join(traceback.format_exception(error))
    text = str(error)
    if len(text) > 4_000 + 3 * len(str(case.path)) or len(text) < 10:
        return "unclear", f"a message of {len(text)} characters: {text[:300]}"
    return ("missing" if isinstance(error, FileNotFoundError | PermissionError | ImportError) else "refused"), text[
        :300
    ]


def run_case(seed: int, index: int, made: seeds.Seeds, folder: Path, watch: Watch) -> Result:
    """Makes and reads one case in this process."""
    case = make_case(seed, index, made, folder)
    error: BaseException | None = None
    torch.manual_seed(0)
    start = time.process_time()
    with watch.on(folder, case.events):
        try:
            case.reader(case.path)  # type: ignore[arg-type]
        except Exception as caught:
            error = caught
        except SystemExit as caught:
            error = caught
    seconds = time.process_time() - start
    outcome, detail = judge(case, error, watch.seen, seconds)
    return Result(index, case.kind, outcome, case.what, detail[-6_000:], seconds)


@contextlib.contextmanager
def silenced(log: Path) -> Iterator[None]:
    """What libraries print goes to a file."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        yield


def _work(indices: list[int], seed: int, made: seeds.Seeds, folder: Path, watch: Watch, send: int) -> None:
    """The cases of a worker; a line to `send` before and after each."""
    sys.setrecursionlimit(1000)
    limit_memory()
    with silenced(folder / "log"), os.fdopen(send, "w") as pipe:
        inner = folder / "case"
        inner.mkdir(exist_ok=True)
        for index in indices:
            clean(inner)
            print(json.dumps({"begin": index}), file=pipe, flush=True)
            print(json.dumps(run_case(seed, index, made, inner, watch)._asdict()), file=pipe, flush=True)


class _Worker:
    def __init__(self, indices: list[int], run: Callable[[list[int], Path, int], None], root: Path) -> None:
        self.left, self.begun, self.current = indices, time.monotonic(), None
        self.folder = Path(tempfile.mkdtemp(dir=root))
        receive, send = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(receive)
            code = 1
            try:
                run(indices, self.folder, send)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(send)
        self.pipe = os.fdopen(receive, "rb", buffering=0)
        self.rest = b""
        self.current: int | None

    def lines(self) -> list[dict[str, Any]] | None:
        """What the worker said since the last call; None if it has ended."""
        data = self.pipe.read(2**16)
        if not data:
            return None
        *whole, self.rest = (self.rest + data).split(b"\n")
        return [json.loads(line) for line in whole]

    def end(self) -> int:
        """Waits for the end; returns the signal that killed it, or 0."""
        self.pipe.close()
        _, status = os.waitpid(self.pid, 0)
        shutil.rmtree(self.folder, ignore_errors=True)
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


class Campaign:
    """Runs cases in forked processes.

    Args:
        seed: seed of all cases; with it, the number of a case determines its bytes.
        root: a folder for seeds and cases.
        jobs: number of processes.
        failures: folder for the artifacts of results that are not good; None: they are not kept.
    """

    def __init__(self, seed: int, root: Path, jobs: int = 1, failures: Path | None = None) -> None:
        self.seed, self.root, self.jobs, self.failures = seed, root, jobs, failures
        root.mkdir(parents=True, exist_ok=True)
        self.seeds = seeds.make(root / "seeds")
        self.watch = Watch()
        self._warm()
        gc.collect()
        gc.freeze()

    def _warm(self) -> None:
        """Reads good and damaged artifacts of every kind once, so that all modules are imported that readers need."""
        import pickletools  # noqa: F401
        import pydoc  # noqa: F401

        for codec in ("latin_1", "ascii", "utf_8", "utf_16", "utf_32", "cp1252", "idna", "punycode"):
            codecs.lookup(codec)
        for registry in SOURCES.values():
            for source in registry.names():
                registry.find(source)
        folder = self.root / "warm"
        folder.mkdir(exist_ok=True)
        for index in range(160):
            clean(folder)
            with contextlib.suppress(Exception), contextlib.redirect_stderr(open(os.devnull, "w")):
                case = make_mild(index, self.seeds, folder)
                case.reader(case.path)  # type: ignore[arg-type]
        for size in archives.BOMBS:
            archives.deflated(b"", size)
        deflated_chunk()
        os.chdir(self.root)

    def run(self, indices: range | list[int], on_result: Callable[[Result], None] = lambda _: None) -> Report:
        """Runs the cases with these numbers."""
        report, waiting = Report(), list(indices)[::-1]
        chunks = [waiting[max(0, end - CHUNK) : end][::-1] for end in range(len(waiting), 0, -CHUNK)]
        chunks.reverse()
        selector, running = selectors.DefaultSelector(), list[_Worker]()

        def record(result: Result) -> None:
            report.add(result)
            self._keep(result)
            on_result(result)

        def start() -> None:
            while chunks and len(running) < self.jobs:
                worker = _Worker(chunks.pop(), self._work, self.root)
                running.append(worker)
                selector.register(worker.pipe, selectors.EVENT_READ, worker)

        start()
        while running:
            for key, _ in selector.select(timeout=1.0):
                worker: _Worker = key.data
                lines = worker.lines()
                for line in lines or []:
                    worker.begun = time.monotonic()
                    if "begin" in line:
                        worker.current = line["begin"]
                    else:
                        worker.left, worker.current = worker.left[1:], None
                        record(Result(**line))
                if lines is None:
                    selector.unregister(worker.pipe)
                    running.remove(worker)
                    number = worker.end()
                    if worker.left:  # It died in its first case that is left.
                        index = worker.left[0]
                        name = signal.Signals(number).name if number else "an error of the harness"
                        record(self._result_of_dead(index, f"the process ended with {name}"))
                        if worker.left[1:]:
                            chunks.append(worker.left[1:])
                    start()
            for worker in running:
                if time.monotonic() - worker.begun > MAX_WALL_SECONDS:
                    os.kill(worker.pid, signal.SIGKILL)
                    worker.begun = time.monotonic()
        return report

    def _work(self, indices: list[int], folder: Path, send: int) -> None:
        _work(indices, self.seed, self.seeds, folder, self.watch, send)

    def write_case(self, index: int, folder: Path) -> Case:
        """Writes the artifact of a case."""
        folder.mkdir(parents=True, exist_ok=True)
        case = make_case(self.seed, index, self.seeds, folder)
        os.chdir(self.root)
        return case

    def _result_of_dead(self, index: int, detail: str) -> Result:
        folder = Path(tempfile.mkdtemp(dir=self.root))
        case = self.write_case(index, folder)
        shutil.rmtree(folder)
        return Result(index, case.kind, "died", case.what, detail, MAX_WALL_SECONDS)

    def _keep(self, result: Result) -> None:
        if result.is_good or self.failures is None:
            return
        folder = self.failures / f"{result.kind}-seed{self.seed}-{result.index}"
        self.write_case(result.index, folder)
        (folder / "RESULT.json").write_text(json.dumps(result._asdict(), indent=2) + "\n")
