"""A trial: a run that is killed one to five times, continued to its end, and compared with the undisturbed run."""

from __future__ import annotations

import random
import shutil
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kills.compare import differences
from kills.processes import End, Kill, in_child, run, run_fresh
from kills.scenarios import Scenario

KILLED = -9
FRESH = 0.1
"""Share of the processes that are new interpreters."""


class Outcome(NamedTuple):
    """What became of a trial."""

    scenario: str
    kills: list[str]
    problems: list[str]
    log: str


class Trials:
    """Runs trials, and keeps the undisturbed run of each scenario.

    Args:
        root: a folder for the runs.
        data: the dataset of the scenarios.
        seed: seed of the moments at which processes are killed.
    """

    def __init__(self, root: Path, data: Path, seed: int) -> None:
        self.root, self.data, self.rng = root, data, random.Random(seed)
        self.references: dict[str, tuple[Path, End]] = {}
        self.number = 0

    def reference(self, scenario: Scenario) -> tuple[Path, End]:
        """Folder and end of the undisturbed run.

        Raises:
            RuntimeError: if it fails.
        """
        if scenario.name not in self.references:
            folder = self.root / f"reference{len(self.references)}"
            log = folder.with_suffix(".log")
            end = run(scenario.words(folder, self.data), folder, log)
            if end.code != 0:
                raise RuntimeError(f"the undisturbed run of '{scenario.name}' failed:\n{log.read_text()[-3000:]}")
            self.references[scenario.name] = folder, end
        return self.references[scenario.name]

    def trial(self, scenario: Scenario, kills: int) -> Outcome:
        """Kills a run up to `kills` times, finishes it, and compares it."""
        reference, end = self.reference(scenario)
        self.number += 1
        folder, done = self.root / f"run{self.number}", list[str]()
        log = folder.with_suffix(".log")
        words = scenario.words(folder, self.data)
        first = ["--overwrite"] if self.rng.random() < 0.15 else self.rng.choice([[], ["--resume"]])
        if first == ["--overwrite"]:
            shutil.copytree(reference, folder)
        for attempt in range(kills):
            extra = first if attempt == 0 else ["--resume"]
            code, how = self._killed([*words, *extra], folder, log, end)
            if code == KILLED:
                done.append(f"{' '.join(extra) or 'begun'}: {how}")
            elif code != 0:
                return self._failed(scenario, done, f"exit code {code} of a process that was to be killed {how}", log)
            else:
                break
        last = run([*words, "--resume"], folder, log)
        if last.code != 0:
            return self._failed(scenario, done, f"the last process ended with code {last.code}", log)
        problems = in_child(partial(differences, reference, folder))
        outcome = Outcome(scenario.name, done, problems, log.read_text()[-4000:])
        if not problems:
            shutil.rmtree(folder, ignore_errors=True)
            log.unlink()
        return outcome

    def _killed(self, words: list[str], folder: Path, log: Path, end: End) -> tuple[int, str]:
        if self.rng.random() < FRESH:
            seconds = self.rng.uniform(0, 3 + end.seconds)
            return run_fresh(words, log, seconds).code, f"a new interpreter after {seconds:.3f} s"
        kill = self._moment(end)
        return run(words, folder, log, kill).code, str(kill)

    def _moment(self, end: End) -> Kill:
        """A moment of the run, or one inside of an operation on files; those of checkpoints are drawn more often."""
        if self.rng.random() < 0.4:
            return Kill(seconds=self.rng.uniform(0, 0.9 * end.seconds))
        of_checkpoints = [n for n, text in enumerate(end.operations, 1) if "checkpoints" in text or "config" in text]
        operation = self.rng.choice(of_checkpoints if self.rng.random() < 0.6 else range(1, len(end.operations) + 1))
        return Kill(operation=operation, delay=self.rng.choice((0.0, 10 ** self.rng.uniform(-5, -1.7))))

    def _failed(self, scenario: Scenario, done: list[str], problem: str, log: Path) -> Outcome:
        return Outcome(scenario.name, done, [problem], log.read_text()[-4000:])
