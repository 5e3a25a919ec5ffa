"""What is known of mutants and tests, in a file that the next run continues from."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mutation.changes import Mutant

FOLDERS = ("algorithms", "losses", "flows", "samplers")
"""Folders of the package with the files that are changed."""
SLOWEST = 4.0
"""Seconds of a test above which it is not run for mutants."""


class Verdict(NamedTuple):
    """What became of a mutant."""

    outcome: Literal["killed", "survived", "unreached", "impossible"]
    """killed: a test failed, or exceeded its time or memory; survived: all passed; unreached: no test executes the
    line; impossible: the change could not be made."""
    by: str | None = None
    """The test that killed it, or why the change could not be made."""


def files(root: Path) -> list[str]:
    """The files that are changed, below the folder of the package."""
    package = root / "flowpolicies"
    found = (path for folder in FOLDERS for path in sorted((package / folder).glob("*.py")))
    return [path.relative_to(package).as_posix() for path in found if path.name != "__init__.py"]


class Results:
    """Verdicts and measured tests, saved as JSON.

    A verdict holds while the file of the mutant and of the test that killed it are the same; or, if it was not killed,
    the files of all tests that execute the line. What was measured of a test holds while its file, the helpers that it
    imports and the files that it executes are the same.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        saved = json.loads(path.read_text()) if path.exists() else {}
        self.verdicts: dict[str, list[str | None]] = saved.get("verdicts", {})
        self.tests: dict[str, dict[str, Any]] = saved.get("tests", {})
        self._helpers = {p.stem: p for p in (root / "tests").rglob("*.py") if not p.name.startswith("test_")}
        self._executing: dict[tuple[str, int], set[str]] = {}

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"verdicts": self.verdicts, "tests": self.tests}))
        new.replace(self.path)

    def is_measured(self, nodeid: str) -> bool:
        return nodeid in self.tests and self.tests[nodeid]["digest"] == self._test_digest(
            nodeid, self.tests[nodeid]["lines"]
        )

    def add_test(
        self, nodeid: str, seconds: float, failed: bool, lines: dict[str, list[int]], modules: list[str]
    ) -> None:
        """Notes of a test how long it takes, which lines of the files that are changed it executes, and which modules
        it imports while it runs."""
        measured = {"seconds": seconds, "failed": failed, "lines": lines, "modules": modules}
        self.tests[nodeid] = measured | {"digest": self._test_digest(nodeid, lines)}

    def choose(self, nodeids: Iterable[str]) -> None:
        """Sets the tests that there are; slow and failing ones are not used."""
        executing: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        for nodeid in nodeids:
            if not self.tests[nodeid]["failed"] and self.tests[nodeid]["seconds"] <= SLOWEST:
                for path, lines in self.tests[nodeid]["lines"].items():
                    for line in lines:
                        executing[path, line].add(nodeid)
        self._executing = dict(executing)

    def tests_of(self, mutant: Mutant, budget: float) -> list[str]:
        """The chosen tests that execute the changed line, fast ones first, of which so many seconds are taken."""
        reaching = {nodeid for line in mutant.lines for nodeid in self._executing.get((mutant.path, line), ())}
        taken, seconds = [], 0.0
        for nodeid in sorted(reaching, key=lambda nodeid: (self.tests[nodeid]["seconds"], nodeid)):
            seconds += self.tests[nodeid]["seconds"]
            if seconds <= budget:
                taken.append(nodeid)
        return taken

    def seconds_of(self, tests: Iterable[str]) -> float:
        return sum(self.tests[nodeid]["seconds"] for nodeid in tests)

    def is_known(self, mutant: Mutant, tests: Collection[str]) -> bool:
        """Whether the verdict on a mutant still holds, if these tests execute it."""
        if mutant.key not in self.verdicts:
            return False
        outcome, by, digest = self.verdicts[mutant.key]
        return digest == self._verdict_digest(mutant, Verdict(outcome, by), tests)  # type: ignore[arg-type]

    def add(self, mutant: Mutant, verdict: Verdict, tests: Collection[str]) -> None:
        self.verdicts[mutant.key] = [*verdict, self._verdict_digest(mutant, verdict, tests)]

    def _verdict_digest(self, mutant: Mutant, verdict: Verdict, tests: Collection[str]) -> str:
        deciding = [verdict.by] if verdict.outcome == "killed" and verdict.by else tests
        paths = {self.root / nodeid.partition("::")[0] for nodeid in deciding}
        return digest([self.root / "flowpolicies" / mutant.path, *sorted(paths)])

    def _test_digest(self, nodeid: str, executed: Iterable[str]) -> str:
        test = self.root / nodeid.partition("::")[0]
        return digest([*self._with_helpers(test), *(self.root / "flowpolicies" / path for path in sorted(executed))])

    def _with_helpers(self, path: Path) -> list[Path]:
        """A file of the tests, `conftest.py`, and the helpers that they import, also through each other."""
        found, pending = [], [self._helpers.get("conftest", path), path]
        while pending:
            if (path := pending.pop()) not in found:
                found.append(path)
                imported = re.findall(r"^\s*(?:from|import) (\w+)", _text(path), re.MULTILINE)
                pending += [self._helpers[name] for name in imported if name in self._helpers]
        return sorted(found)


def digest(paths: Iterable[Path]) -> str:
    """A hash of the contents of files, in this order; a file that is missing counts too."""
    return _hash("".join(map(_file_digest, paths)).encode())


@cache
def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


@cache
def _file_digest(path: Path) -> str:
    return _hash(path.read_bytes() if path.is_file() else b"")


def _hash(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()[:16]
