"""Scores of runs, by label, environment and seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, final

import numpy as np

from flowpolicies import data
from flowpolicies.artifacts import reading
from flowpolicies.comparison.results import EpisodeResult, is_results, read_results
from flowpolicies.comparison.runs import NamedRun, name_runs
from flowpolicies.comparison.statistics import Groups
from flowpolicies.data.names import REFERENCE
from flowpolicies.training.evaluations import EvaluationRow, Phase
from flowpolicies.training.runs import RunFolder

Metric = Literal["success", "score", "return"]
"""Quantity to compare: success in percent, D4RL's normalised score, or the return."""

UNITS: Mapping[Metric, str] = {"success": "success in %", "score": "D4RL's normalised score", "return": "return"}


class RunScores(NamedTuple):
    """What is known of one run in one environment."""

    run: NamedRun
    label: str
    algorithm: str | None
    environment: str
    seed: int | str
    """Seed of the training run; the name of the policy where it is not known."""
    values: Mapping[Metric, float]
    """Metric -> score, for the metrics that are known."""
    evaluations: tuple[EvaluationRow, ...] = ()
    """Evaluations during training; empty for the rows of a results file."""
    record: Mapping[str, Any] = MappingProxyType({})
    """Record of the run; empty if it is not known."""


def read_scores(words: Sequence[str | Path], *, phase: Phase | None = None, last: int = 1) -> list[RunScores]:
    """Scores of runs and results files.

    Args:
        words: run folders, folders of runs and results files, each as PATH or LABEL=PATH.
        phase: phase whose evaluations count, for run folders; None: the phase in which a run ends.
        last: number of last evaluations of the phase that are averaged, for run folders.

    Raises:
        ValueError: if a run has no evaluations, or two runs have equal label, environment and seed.
        ArtifactError: if a file is damaged.
        FileNotFoundError: if a path is neither a run folder nor a results file.
    """
    return scores_of(name_runs(words), phase=phase, last=last)


def scores_of(runs: Iterable[NamedRun], *, phase: Phase | None = None, last: int = 1) -> list[RunScores]:
    """`read_scores` for runs that are named already."""
    if last < 1:
        raise ValueError(f"--last is the number of evaluations that are averaged and must be at least 1, got {last}")
    found: dict[tuple[str, str, int | str], RunScores] = {}
    for run in runs:
        for one in _from_results(run) if is_results(run.path) else [_from_folder(run, phase, last)]:
            key = (one.label, one.environment, one.seed)
            if key in found:
                raise ValueError(
                    f"'{found[key].run.path}' and '{run.path}' both hold a run of '{one.label}' in '{one.environment}' "
                    f"with seed {one.seed}. Give the runs labels, as in one={found[key].run.path} other={run.path}, or "
                    "leave one of them out."
                )
            found[key] = one
    return list(found.values())


def _from_results(run: NamedRun) -> Iterator[RunScores]:
    groups: dict[tuple[str, str], list[EpisodeResult]] = {}
    for row in read_results(run.path):
        groups.setdefault((row.run, row.environment), []).append(row)
    for (name, environment), rows in groups.items():
        one, values = rows[0], dict[Metric, float]({"return": float(np.mean([row.total for row in rows]))})
        if (successes := _known([row.success for row in rows])) is not None:
            values["success"] = 100 * float(np.mean(successes))
        if (scores := _known([row.score for row in rows])) is not None:
            values["score"] = float(np.mean(scores))
        seed = name if one.run_seed is None else one.run_seed
        yield RunScores(run, run.label or one.label, one.algorithm, environment, seed, values)


def _known(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _from_folder(run: NamedRun, phase: Phase | None, last: int) -> RunScores:
    record, every = RunFolder(run.path).read_config(), RunFolder(run.path).read_evaluations()
    chosen = phase or (every[-1].phase if every else "offline")
    rows = [row for row in every if row.phase == chosen][-last:]
    if not rows:
        raise ValueError(
            f"the run in '{run.path}' has no evaluations{f' of its {phase} phase' if phase else ''}. Evaluate it with "
            f"`flowpolicies evaluate {run.path} --out results.jsonl`, and compare the results."
        )
    values: dict[Metric, float] = {"return": float(np.mean([row.mean_return for row in rows]))}
    if not any(math.isnan(row.success) for row in rows):
        values["success"] = 100 * float(np.mean([row.success for row in rows]))
    provenance = record["dataset"].get("provenance", {})
    if isinstance(provenance, dict) and REFERENCE in provenance:
        with reading(RunFolder(run.path).config, f"dataset, provenance, {REFERENCE}"):
            values["score"] = float(data.normalized_score(provenance, values["return"]))
    environment, algorithm = str(record.get("env")), record.get("algorithm")
    return RunScores(run, run.name, algorithm, environment, record.get("seed", 0), values, tuple(every), record)


@final
@dataclass(frozen=True)
class ScoreTable:
    """Scores of one metric, by label, environment and seed."""

    metric: Metric
    """Metric of the scores."""
    runs: Sequence[RunScores]
    """The runs that are compared."""
    table: Mapping[str, Mapping[str, Mapping[int | str, float]]] = field(init=False)
    """Label -> environment -> seed -> score."""

    def __post_init__(self) -> None:
        table: dict[str, dict[str, dict[int | str, float]]] = {}
        for one in self.runs:
            table.setdefault(one.label, {}).setdefault(one.environment, {})[one.seed] = one.values[self.metric]
        object.__setattr__(self, "table", table)

    @property
    def environments(self) -> list[str]:
        """All environments, in the order of the runs."""
        return list(dict.fromkeys(one.environment for one in self.runs))

    @property
    def common(self) -> list[str]:
        """The environments that all labels have runs in; what is said about all tasks is about these."""
        return [name for name in self.environments if all(name in each for each in self.table.values())]

    @property
    def is_on_one_scale(self) -> bool:
        """Whether scores of the common environments may be averaged: returns of several environments may not."""
        return self.metric != "return" or len(self.common) == 1

    def groups(self, label: str, environments: Sequence[str] | None = None) -> Groups:
        """Scores of the runs of a label in each of the environments; None: the common ones."""
        chosen = self.common if environments is None else environments
        return [np.array(list(self.table[label][name].values())) for name in chosen]

    def single(self) -> list[tuple[str, str]]:
        """The label and environment of each run that is alone, so that there is no interval over seeds."""
        return [(label, name) for label, each in self.table.items() for name in each if len(each[name]) == 1]


def compare(runs: Sequence[RunScores], metric: Metric | None = None) -> ScoreTable:
    """The scores of runs.

    Args:
        metric: what to compare; None: D4RL's score if all runs have it, else success, else the return.

    Raises:
        ValueError: if a run does not have the metric.
    """
    known = [name for name in UNITS if all(name in one.values for one in runs)]
    if metric is not None and metric not in known:
        one = next(one for one in runs if metric not in one.values)
        raise ValueError(f"'{one.run.path}' does not report {UNITS[metric]}. All runs have: {', '.join(known)}.")
    best: Sequence[Metric] = [name for name in ("score", "success", "return") if name in known]
    return ScoreTable(metric or best[0], runs)


def mixed_settings(runs: Sequence[RunScores]) -> dict[str, dict[str, list[Any]]]:
    """Label -> hyperparameters, and their values, in which its runs in one environment differ."""
    found: dict[str, dict[str, list[Any]]] = {}
    firsts: dict[tuple[str, str], RunScores] = {}
    for one in runs:
        first = firsts.setdefault((one.label, one.environment), one)
        here, there = _settings(one), _settings(first)
        for name in here.keys() & there.keys():
            if here[name] != there[name]:
                values = found.setdefault(one.label, {}).setdefault(name, [there[name]])
                values += [here[name]] * (here[name] not in values)
    return found


def _settings(one: RunScores) -> dict[str, Any]:
    record = one.record
    return {"algorithm": one.algorithm, **record.get("hyperparameters", {}), **record.get("sb3_hyperparameters", {})}
