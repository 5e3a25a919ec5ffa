"""What a report is about: the runs that the command line names, with their scores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from flowpolicies.comparison.results import is_results
from flowpolicies.comparison.runs import NamedRun, name_runs, short_names
from flowpolicies.comparison.scores import UNITS, Metric, RunScores, ScoreTable, compare, scores_of
from flowpolicies.comparison.summary import choose_baseline
from flowpolicies.training.runs import RunFolder


@final
@dataclass(frozen=True)
class Gathered:
    """The runs of a report."""

    runs: Sequence[NamedRun]
    """All runs and results files that were named."""
    unscored: Sequence[NamedRun]
    """Those of them that have no evaluation."""
    comparison: ScoreTable
    """Scores of the others."""
    baseline: str
    """Label that the others are compared with."""
    last: int
    """Number of last evaluations of a run that its score is the mean of."""

    @cached_property
    def names(self) -> Mapping[Path, str]:
        """Path of a run -> its name in the report."""
        return short_names(run.path for run in self.runs)

    @cached_property
    def records(self) -> Mapping[Path, Mapping[str, Any]]:
        """Path of a run folder -> its record. Results files have none."""
        return {run.path: run.record for run in self.runs if not is_results(run.path)}

    @property
    def labels(self) -> list[str]:
        """Labels of the runs that have scores, in the order of the command line."""
        return list(self.comparison.table)

    @cached_property
    def colors(self) -> Mapping[str, str]:
        """Label -> color; black, which cannot be seen on a dark page, is gray."""
        from flowpolicies.training.plots import COLORS  # It imports Matplotlib, for which errors do not wait.

        palette = ["#8a8a8a" if color == "#000000" else color for color in COLORS]
        return {label: palette[number % len(palette)] for number, label in enumerate(self.labels)}

    @property
    def environments(self) -> list[str]:
        """All environments, by name; numbers in names count as numbers."""
        return sorted(self.comparison.environments, key=_natural)

    @property
    def in_folders(self) -> list[RunScores]:
        """Scores of the runs that have evaluations of their training."""
        return [one for one in self.comparison.runs if one.evaluations]

    @property
    def unit(self) -> str:
        """What the scores are."""
        return UNITS[self.comparison.metric]

    @property
    def is_success(self) -> bool:
        """Whether curves show success; else they show returns."""
        return self.comparison.metric == "success"

    @property
    def extent(self) -> tuple[float, ...]:
        """Least and greatest value of axes of scores; empty if they have no bounds."""
        return (0.0, 100.0) if self.is_success else ()


def gather(
    words: Sequence[str | Path], *, metric: Metric | None = None, baseline: str | None = None, last: int = 1
) -> Gathered:
    """Reads runs for a report.

    Args:
        words: run folders, folders of runs and results files, each as PATH or LABEL=PATH.
        metric: what to compare; None: see `compare`.
        baseline: label that the others are compared with; None: that of the first run.
        last: number of last evaluations of a run that are averaged.

    Raises:
        FileNotFoundError: if a path is neither a run folder nor a results file.
        ArtifactError: if a file is damaged.
        ValueError: if no run has an evaluation, or see `read_scores` and `compare`.
    """
    runs = name_runs(words)
    unscored = [run for run in runs if not is_results(run.path) and not _evaluated(run)]
    scored = [run for run in runs if run not in unscored]
    if not scored:
        raise ValueError(
            "none of these runs has an evaluation, so there is nothing to report. Train with an environment and with "
            "--eval-episodes of at least 1, or evaluate them with `flowpolicies evaluate RUNS --out results.jsonl`, "
            "and report the results."
        )
    comparison = compare(scores_of(scored, last=last), metric)
    return Gathered(runs, unscored, comparison, choose_baseline(comparison, baseline), last)


def _evaluated(run: NamedRun) -> bool:
    folder = RunFolder(run.path)
    folder.read_config()  # A path that is not the folder of a run is reported as such.
    return bool(folder.read_evaluations())


def _natural(name: str) -> list[tuple[int, str]]:
    """Key by which task 2 comes before task 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def short(environment: str) -> str:
    """An environment's address without its source."""
    return environment.partition(":")[2] or environment


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names as a part of a sentence; of many only the first ones, and the number of the others."""
    shown = list(names[:most])
    return ", ".join(shown) + (f" and {len(names) - most} others" if len(names) > most else "")


def count(number: int, thing: str) -> str:
    """A number of things, such as "1 run" or "3 runs"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
