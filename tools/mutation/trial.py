"""Runs inside pytest: collects the tests once, and tries every mutant in a forked child of that process.

    python -m mutation.trial ROOT RESULTS JOBS BUDGET FILE... -- TEST...

Starting pytest, importing torch and collecting take longer than the tests of most mutants. A child inherits all of it,
exchanges the code of the functions of one file, and runs the tests that execute the changed line until one fails.
Nothing is written to a file of the package.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from mutation.changes import Mutant, mutants
from mutation.results import Results, Verdict, files

MEMORY = 6 << 30
"""Bytes that a mutant may take beyond what the process has; a wrong shape can ask for more than there is."""
SAY_EVERY = 15.0
"""Seconds between two lines on the progress."""


Functions = dict[str, list[FunctionType]]
"""The living functions of one file by qualified name, those inside functions included."""


def functions() -> dict[str, Functions]:
    """All living functions by the path of their file."""
    found: defaultdict[str, Functions] = defaultdict(lambda: defaultdict(list))
    for thing in gc.get_objects():
        if type(thing) is FunctionType:  # isinstance would ask proxies for their class.
            found[thing.__code__.co_filename][thing.__code__.co_qualname].append(thing)
    return found


def codes(code: CodeType) -> Iterator[CodeType]:
    """The code of all functions in compiled code."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from codes(constant)


def become(mutant: Mutant, living: Functions, path: Path) -> None:
    """Turns this process into the mutant.

    Raises:
        LookupError: if no function of this process is changed by it.
    """
    module = next(m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == str(path))
    if mutant.function in vars(module) and not callable(vars(module)[mutant.function]):
        setattr(module, mutant.function, mutant.replacement.value)  # type: ignore[attr-defined]
        return
    changed = 0
    for code in codes(mutant.code()):
        if code.co_qualname == mutant.function or code.co_qualname.startswith(f"{mutant.function}.<locals>."):
            for function in living[code.co_qualname]:
                if function.__code__.co_firstlineno == code.co_firstlineno:
                    function.__code__ = code
                    changed += 1
    if not changed:
        raise LookupError(f"{mutant.key}: no function of this process has the changed code")


def execute(item: pytest.Item, names: dict[str, str], out: Path) -> None:
    """Runs a test, and writes its seconds, whether it failed, the lines that it executes of the named files, and the
    modules that it imports."""
    lines: defaultdict[str, set[int]] = defaultdict(set)
    start, before = time.process_time(), set(sys.modules)
    sys.settrace(partial(_trace, names, lines))
    failed = fails(item, None)
    sys.settrace(None)
    seconds, listed = time.process_time() - start, {name: sorted(found) for name, found in lines.items()}
    modules = sorted(set(sys.modules) - before)
    out.write_text(json.dumps({"seconds": seconds, "failed": failed, "lines": listed, "modules": modules}))


def preload(modules: Iterable[str]) -> None:
    """Imports here what tests import while they run, or every child would do it again."""
    for name in modules:
        with suppress(Exception):  # Some can only be imported by their package, in its order.
            importlib.import_module(name)


def _trace(names: dict[str, str], lines: dict[str, set[int]], frame: FrameType, event: str, _: Any) -> Any:
    if (name := names.get(frame.f_code.co_filename)) is None:
        return None
    lines[name].add(frame.f_lineno)
    return partial(_trace, names, lines)


def fails(item: pytest.Item, following: pytest.Item | None) -> bool:
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def run_until_failure(items: Sequence[pytest.Item], out: Path) -> None:
    """Runs tests until one fails, and writes the verdict on the mutant that this process is.

    It is written before each test as well, for tests that exceed their time or memory.
    """
    for item, following in zip(items, [*items[1:], None], strict=True):
        out.write_text(json.dumps(Verdict("killed", item.nodeid)))
        if fails(item, following):
            return
    out.write_text(json.dumps(Verdict("survived")))


def fork(work: Callable[[], None], seconds: float | None = None) -> int:
    """Runs a function in a silent child, and returns the child's number.

    Args:
        seconds: processor time that the child may take, and a thirtieth of the time that it may take by the clock.
    """
    if (child := os.fork()) != 0:
        return child
    code = 1
    try:
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        if seconds is not None:
            _limit(seconds)
        work()
        code = 0
    finally:
        os._exit(code)


def _limit(seconds: float) -> None:
    for alarm, timer, factor in (
        (signal.SIGPROF, signal.ITIMER_PROF, 1),
        (signal.SIGALRM, signal.ITIMER_REAL, 30),
    ):
        signal.signal(alarm, signal.SIG_DFL)
        signal.setitimer(timer, factor * seconds)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


@dataclass
class Trial:
    """A pytest plugin that tries mutants instead of running the tests."""

    root: Path
    """The copy of the tree that is imported."""
    results: Results
    files: list[str]
    """The files that are changed, below the folder of the package."""
    jobs: int = 1
    budget: float = 10.0
    """Most seconds of tests per mutant; the fastest ones are taken."""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("tests could not be collected")
        self.living = functions()
        gc.freeze()  # Children copy less memory.
        self.items = {item.nodeid: item for item in session.items}
        preload({name for test in self.results.tests.values() for name in test["modules"]})
        self.measure()
        self.results.choose(self.items)
        planned = [(mutant, self.tests_of(mutant)) for name in self.files for mutant in mutants(self.path(name), name)]
        pending = [(mutant, tests) for mutant, tests in planned if not self.results.is_known(mutant, tests)]
        say(f"{len(planned)} mutants, {len(planned) - len(pending)} of them known from before")
        self.try_all(pending)
        return True

    def path(self, name: str) -> Path:
        return self.root / "flowpolicies" / name

    def tests_of(self, mutant: Mutant) -> list[str]:
        return self.results.tests_of(mutant, self.budget)

    def measure(self) -> None:
        """Finds out which lines each test executes, for tests that changed since they were last measured."""
        new = [item for nodeid, item in self.items.items() if not self.results.is_measured(nodeid)]
        if not new:
            return
        say(f"measuring {len(new)} tests")
        names = {str(self.path(name)): name for name in files(self.root)}
        with tempfile.TemporaryDirectory() as folder:
            for number, item in enumerate(new):
                # Each in a process of its own, or it would profit from what the tests before it have cached.
                out = Path(folder) / str(number)
                os.waitpid(fork(partial(execute, item, names, out)), 0)
                failed: dict[str, Any] = {"seconds": 0.0, "failed": True, "lines": {}, "modules": []}
                measured = json.loads(out.read_text()) if out.exists() else failed
                if measured["failed"]:
                    say(f"left out, because it fails without a mutant: {item.nodeid}")
                preload(measured["modules"])
                self.results.add_test(item.nodeid, **measured)
        self.results.save()

    def try_all(self, pending: Sequence[tuple[Mutant, list[str]]]) -> None:
        """Tries mutants, of one file after the other."""
        progress = Progress(len(pending), self.results)
        running: dict[int, tuple[Mutant, list[str], Path]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for number, (mutant, tests) in enumerate(pending):
                if not tests:
                    progress.add(mutant, Verdict("unreached"), tests)
                    continue
                if len(running) == self.jobs:
                    self.wait(running, progress)
                out = Path(folder) / str(number)
                work = partial(self.child, mutant, tests, out)
                running[fork(work, 20 + 5 * self.results.seconds_of(tests))] = (mutant, tests, out)
            while running:
                self.wait(running, progress)
        self.results.save()

    def child(self, mutant: Mutant, tests: list[str], out: Path) -> None:
        path = self.path(mutant.path)
        try:
            become(mutant, self.living[str(path)], path)
        except (LookupError, ValueError) as error:
            out.write_text(json.dumps(Verdict("impossible", str(error))))
            return
        run_until_failure([self.items[nodeid] for nodeid in tests], out)

    def wait(self, running: dict[int, tuple[Mutant, list[str], Path]], progress: Progress) -> None:
        """Notes the verdict on the mutant that is decided next."""
        child, _ = os.wait()
        mutant, tests, out = running.pop(child)
        progress.add(mutant, Verdict(*json.loads(out.read_text())) if out.exists() else Verdict("killed"), tests)


class Progress:
    """Says which mutants survive, and how long the rest will take: as long per mutant as those so far."""

    def __init__(self, total: int, results: Results) -> None:
        self.total, self.results = total, results
        self.start = self.said = time.monotonic()
        self.done = 0

    def add(self, mutant: Mutant, verdict: Verdict, tests: list[str]) -> None:
        self.results.add(mutant, verdict, tests)
        self.done += 1
        if verdict.outcome != "killed":
            say(f"{verdict.outcome}: {mutant.key} (line {mutant.lines[0]})")
        now = time.monotonic()
        if now - self.said > SAY_EVERY:
            self.said = now
            self.results.save()
            minutes = (now - self.start) / self.done * (self.total - self.done) / 60
            say(f"{self.done} of {self.total} mutants, about {minutes:.0f} minutes left")


def say(text: str) -> None:
    """Prints at once, past what pytest captures."""
    print(text, file=sys.__stdout__, flush=True)


def main() -> int:
    """As described above; the numbers are those of `Trial`."""
    root, results, jobs, budget, *rest = sys.argv[1:]
    chosen, tests = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    trial = Trial(Path(root), Results(Path(results), Path(root)), chosen, int(jobs), float(budget))
    quiet = ["-q", "--no-header", "--disable-warnings", "-p", "no:xdist", "-p", "no:cacheprovider", "--capture=no"]
    return int(pytest.main([*quiet, *tests], plugins=[trial]))


if __name__ == "__main__":
    sys.exit(main())
