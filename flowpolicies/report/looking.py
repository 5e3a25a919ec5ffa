"""Sections that need the models of runs with their data: diagnostics, and samples of actions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowpolicies.comparison.results import is_results
from flowpolicies.comparison.runs import NamedRun
from flowpolicies.diagnostics.callback import LEVELS
from flowpolicies.diagnostics.diagnose import DIAGNOSTICS, diagnose
from flowpolicies.diagnostics.evidence import Evidence, NotMeasurable
from flowpolicies.diagnostics.readings import Diagnosis, Judgement, Reading
from flowpolicies.diagnostics.runs import open_run
from flowpolicies.pages.blocks import (
    ChartBlock,
    CodeBlock,
    Level,
    NoticeBlock,
    PageBlock,
    PageCell,
    Section,
    TableBlock,
    TextBlock,
)
from flowpolicies.report import charts
from flowpolicies.report.gather import Gathered, count, listed, short
from flowpolicies.report.losses import logged
from flowpolicies.training.runs import RunFolder

BINS = 40
"""Number of bins of the histograms of actions."""
MOST_DIMENSIONS = 8
"""Largest number of dimensions of actions that are drawn."""
ASK = "Pass --diagnose to load the models and the datasets of the runs; datasets that are not here are downloaded then."
"""How to get what only a model with its data shows."""
Readings = Mapping[str, Mapping[str, Reading]]
"""Name of a run -> name of a diagnostic -> its reading."""
LEVEL_OF: dict[Judgement, Level] = {"ok": "ok", "look": "look", "bad": "bad", "not applicable": "info"}


class Looked(NamedTuple):
    """What a model with its data shows."""

    run: NamedRun
    diagnosis: Diagnosis | None
    """Readings of all diagnostics; None if there are none, for the reason that `problem` is."""
    problem: str = ""
    """Why the run could not be diagnosed; empty if it could."""
    policy: np.ndarray | None = None
    """First actions of the policy, in units of their bounds, `[N, A]`; None if there are none."""
    data: np.ndarray | None = None
    """Actions of the data in the same states, `[N, A]`; None if there are none."""


def look_at(
    run: NamedRun, *, episodes: int = 0, data_dir: Path | None = None, samples: int = 1024, device: str = "auto"
) -> Looked:
    """Diagnoses the newest model of a run, and takes samples of its actions. What goes wrong is a part of the result.

    Args:
        run: run folder.
        episodes: number of episodes of the policy, for the diagnostics that need them.
        data_dir: folder of the dataset's files; None: that of the run.
        samples: number of transitions that are looked at.
        device: device of the networks.
    """
    try:
        with ExitStack() as stack:
            model, env = open_run(RunFolder(run.path), stack, data_dir=data_dir, episodes=episodes, device=device)
            diagnosis = diagnose(model, env, samples=samples)
            evidence, width = Evidence(model, None, samples=samples), int(np.prod(model.action_space.shape or (1,)))
            try:
                policy, data = evidence.actions[:, :width], evidence.batch.actions[:, :width]
            except NotMeasurable as reason:
                return Looked(run, diagnosis, str(reason))
            return Looked(run, diagnosis, "", policy.cpu().numpy(), data.cpu().numpy())
    except (ValueError, TypeError, OSError, ImportError) as error:
        return Looked(run, None, str(error) or type(error).__name__)


def diagnostics_section(gathered: Gathered, looked: Sequence[Looked] | None) -> Section:
    """Readings with their verdicts: those of --diagnose, otherwise those that were logged in training."""
    lacking = []
    if looked is None:
        found = {run: list(_logged_readings(run)) for run in gathered.runs if not is_results(run.path)}
        have = any(found.values())
        lacking.append(f"{'The readings are those that were logged' if have else 'No diagnosis was made'}. {ASK}")
    else:
        found = {one.run: list(one.diagnosis.readings) for one in looked if one.diagnosis is not None}
        lacking += [
            f"{gathered.names[one.run.path]} could not be diagnosed: {one.problem}"
            for one in looked
            if not one.diagnosis
        ]
    readings = {gathered.names[run.path]: {one.name: one for one in each} for run, each in found.items() if each}
    blocks = [*_matrix(readings), *_notices(readings), *(TextBlock(text, "missing") for text in lacking)]
    return Section(title="Diagnostics", sentence=_judged(readings), blocks=blocks)


def _matrix(readings: Readings) -> list[PageBlock]:
    """A table with a row for each diagnostic and a column for each run, and all sentences."""
    if not readings:
        return []
    names = [name for name in DIAGNOSTICS if any(name in each for each in readings.values())]
    rows = [[PageCell(name), *(_verdict(each.get(name)) for each in readings.values())] for name in names]
    sentences = "\n".join(
        f"{run}: {one.name}: {one.judgement}. {one.sentence}" for run, each in readings.items() for one in each.values()
    )
    caption = "Verdicts with the measured values, which are high when something is wrong"
    return [TableBlock(caption, ("diagnostic", *readings), rows), CodeBlock("What was measured", sentences)]


def _verdict(reading: Reading | None) -> PageCell:
    if reading is None:
        return PageCell("-")
    value = "" if reading.value is None else f" {reading.value:.3g}"
    return PageCell(f"{reading.judgement}{value}", LEVELS.get(reading.judgement, -1), level=LEVEL_OF[reading.judgement])


def _notices(readings: Readings) -> Iterator[PageBlock]:
    """What is wrong and what to do about it, the worst first."""
    for judgement in ("bad", "look"):
        for run, each in readings.items():
            for one in each.values():
                if one.judgement == judgement:
                    head = f"{run}: {one.name} is {'bad' if judgement == 'bad' else 'worth a look'}"
                    yield NoticeBlock(LEVEL_OF[one.judgement], head, (one.sentence, one.remedy))


def _judged(readings: Readings) -> str:
    if not readings:
        return "There are no readings of these runs."
    every = [(run, one) for run, each in readings.items() for one in each.values()]
    bad, look = ([f"{one.name} of {run}" for run, one in every if one.judgement == kind] for kind in ("bad", "look"))
    if not bad and not look:
        return f"Nothing is wrong in {count(len(every), 'reading')} of {count(len(readings), 'run')}."
    return f"Of {count(len(every), 'reading')} {len(bad)} are bad and {len(look)} worth a look: {listed(bad + look)}."


def _logged_readings(run: NamedRun) -> Iterator[Reading]:
    """The last readings that `DiagnosisCallback` has logged."""
    log = dict(logged(run, re.compile("diagnosis/.+")))
    judgements: dict[float, Judgement] = {0: "ok", 1: "look", 2: "bad"}
    for name, diagnostic in DIAGNOSTICS.items():
        if f"diagnosis/{name}_judgement" in log and f"diagnosis/{name}" in log:
            (step, value), (_, level) = log[f"diagnosis/{name}"][-1], log[f"diagnosis/{name}_judgement"][-1]
            text = f"{value:.3g} at step {step:,}; look above {diagnostic.look:g}, bad above {diagnostic.bad:g}."
            judgement = judgements.get(level, "bad")
            yield Reading(name, judgement, text, value, diagnostic.look, diagnostic.bad, diagnostic.remedy)


def actions_section(gathered: Gathered, looked: Sequence[Looked] | None) -> Section:
    """Histograms of the policies' actions over those of the data, in the same states."""
    title = "Actions"
    if looked is None:
        sentence = "No actions were sampled, because the models were not loaded."
        return Section(title=title, sentence=sentence, blocks=[TextBlock(ASK, "missing")])
    lacking = [f"{gathered.names[one.run.path]}: no actions: {one.problem}" for one in looked if one.policy is None]
    groups: dict[tuple[str, int], list[Looked]] = {}
    for one in looked:
        if one.policy is not None:
            groups.setdefault((short(str(one.run.record.get("env"))), one.policy.shape[1]), []).append(one)
    blocks: list[PageBlock] = []
    distances: dict[str, float] = {}
    for (environment, width), own in groups.items():
        for dimension in range(min(MOST_DIMENSIONS, width)):
            name = f"{environment}, dimension {dimension} of the action"
            spec, shares = _densities(own, dimension, _all_colors(gathered, own))
            blocks.append(ChartBlock(name, spec))
            distances |= {f"{label} in {name}": share for label, share in shares.items()}
        if width > MOST_DIMENSIONS:
            lacking.append(f"{environment}: of {width} dimensions the first {MOST_DIMENSIONS} are drawn.")
    sentence = "No actions could be sampled."
    if distances:
        name, share = max(distances.items(), key=lambda item: item[1])
        sentence = (
            "Gray are the data's actions, colored the policies' first actions in the same states; farthest from the "
            f"data is {name}, where {share:.0%} of the actions would have to move."
        )
    return Section(title=title, sentence=sentence, blocks=[*blocks, *(TextBlock(each, "missing") for each in lacking)])


def _all_colors(gathered: Gathered, looked: Sequence[Looked]) -> dict[str, str]:
    """The colors of labels; those of runs without scores are gray."""
    return {**gathered.colors, **{one.run.name: "#8a8a8a" for one in looked if one.run.name not in gathered.colors}}


def _densities(
    looked: Sequence[Looked], dimension: int, colors: Mapping[str, str]
) -> tuple[charts.Spec, dict[str, float]]:
    """The chart of a dimension, and by label the share of actions that would have to move to be as the data's."""
    edges = np.linspace(-1, 1, BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2

    def shares(arrays: Sequence[np.ndarray | None]) -> np.ndarray:
        values = np.concatenate([each[:, dimension] for each in arrays if each is not None])
        found: np.ndarray = np.histogram(np.clip(values, -1, 1), edges)[0] / len(values)
        return found

    def rows(found: np.ndarray, **more: str) -> list[dict[str, Any]]:
        return [{**more, "x": float(x), "share": 100 * float(each)} for x, each in zip(middles, found, strict=True)]

    data = shares([one.data for one in looked])
    labels = dict.fromkeys(one.run.name for one in looked)
    policies = {name: shares([one.policy for one in looked if one.run.name == name]) for name in labels}
    drawn = [row for name, found in policies.items() for row in rows(found, label=name)]
    spec = charts.densities(drawn, rows(data), colors, x="action, in units of its bounds")
    return spec, {name: float(np.abs(found - data).sum() / 2) for name, found in policies.items()}
