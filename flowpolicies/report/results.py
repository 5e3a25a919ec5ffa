"""Sections about scores: the summary, the tasks and the runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from flowpolicies.comparison.scores import mixed_settings
from flowpolicies.comparison.statistics import mean_over_tasks
from flowpolicies.comparison.summary import interval_text, notes, summarize
from flowpolicies.pages.blocks import ChartBlock, PageBlock, PageCell, Section, TableBlock, TextBlock
from flowpolicies.policies.intervals import Interval
from flowpolicies.report import charts
from flowpolicies.report.gather import Gathered, count, listed, short
from flowpolicies.reproduction.beside import published_of


def summary_section(gathered: Gathered) -> Section:
    """Means and interquartile means over tasks, with their intervals, and published numbers beside."""
    comparison = gathered.comparison
    summary = summarize(comparison, gathered.baseline)
    cells = [
        [
            PageCell(label),
            PageCell(str(one["runs"])),
            *(interval_cell(one[name]) for name in ("mean", "iqm", "better")),
        ]
        for label, one in summary.items()
    ]
    head = ("label", "runs", "mean", "interquartile mean", f"P(better than {gathered.baseline})")
    caption = f"{gathered.unit}, with 95 % stratified bootstrap intervals over seeds"
    blocks: list[PageBlock] = [TableBlock(caption, head, cells)]
    rows = [
        {"label": label, "kind": kind, **one[name]._asdict()}
        for label, one in summary.items()
        for kind, name in (("mean", "mean"), ("interquartile mean", "iqm"))
        if one[name] is not None
    ]
    if rows:
        title = f"Mean and interquartile mean over {count(len(comparison.common), 'task')}"
        spec = charts.intervals(rows, gathered.colors, x=gathered.unit, extent=gathered.extent)
        blocks.append(ChartBlock(title, spec))
    blocks.append(_published(gathered))
    blocks += [TextBlock(f"Note: {note}", "missing") for note in notes(comparison, mixed_settings(comparison.runs))]
    if gathered.unscored:
        names = listed([gathered.names[run.path] for run in gathered.unscored], 20)
        blocks.append(TextBlock(f"Without any evaluation, and so without a score: {names}.", "missing"))
    sentence = _verdict(gathered, {label: one["mean"] for label, one in summary.items() if one["mean"] is not None})
    return Section(title="Summary", sentence=sentence, blocks=blocks)


def _verdict(gathered: Gathered, means: Mapping[str, Interval]) -> str:
    if not means:
        return "These runs have no scores that can be averaged over tasks; the section Tasks has those of each task."
    best = max(means, key=lambda label: means[label].mean)
    tasks = count(len(gathered.comparison.common), "task")
    reached = f"{interval_text(means[best])} ({gathered.unit}, mean over {tasks})"
    others = [label for label in means if label != best]
    if not others:
        return f"{best} reaches {reached}."
    if tied := [label for label in others if means[label].mean == means[best].mean]:
        return f"The highest mean, {reached}, is that of several labels: {listed([best, *tied])}."
    if any(math.isnan(mean.low) for mean in means.values()):
        tail = "how sure that is cannot be said, as some tasks have a single run"
    elif near := [label for label in others if means[label].high >= means[best].low]:
        tail = f"its interval overlaps with that of {listed(near)}"
    else:
        tail = f"its interval is above {'that' if len(others) == 1 else 'those'} of {listed(others)}"
    return f"{best} has the highest mean, {reached}; {tail}."


def _published(gathered: Gathered) -> PageBlock:
    rows = []
    for label, one in published_of(gathered.comparison):
        ours = mean_over_tasks(gathered.comparison.groups(label, one.environments))
        part = PageCell(f"{len(one.environments)} of {one.tasks}", len(one.environments))
        place = PageCell(f"{one.table}, {one.row}, {one.column}")
        rows.append([PageCell(label), interval_cell(ours), PageCell(str(one.score), one.score.mean), place, part])
    if not rows:
        return TextBlock("No published number is of one of these algorithms on one of these tasks.", "missing")
    head = ("label", "ours", "published", "table, row, column", "tasks")
    return TableBlock("Published means of success beside ours, with their deviations over seeds", head, rows)


def tasks_section(gathered: Gathered) -> Section:
    """A row for each environment and a column for each label."""
    comparison = gathered.comparison
    table = comparison.table
    scores = [value for each in table.values() for seeds in each.values() for value in seeds.values()]
    low, high = gathered.extent or (min(scores), max(scores))
    rows, best = [], dict.fromkeys(table, 0)
    for name in gathered.environments:
        found = {
            label: mean_over_tasks(comparison.groups(label, [name])) for label, each in table.items() if name in each
        }
        top = max(one.mean for one in found.values())
        for label, one in found.items():
            best[label] += one.mean == top
        rows.append([PageCell(short(name)), *(interval_cell(found.get(label), low, high) for label in table)])
    number = count(len(comparison.environments), "task")
    parts = listed([f"{label} in {wins}" for label, wins in best.items()], 8)
    sentence = f"The highest score of {number} is that of {parts} (ties count for each)."
    if len(table) == 1:
        (label,) = table
        means = {float(comparison.groups(label, [name])[0].mean()): short(name) for name in comparison.environments}
        (least, worst), (most, first) = min(means.items()), max(means.items())
        sentence = f"Scores go from {least:.4g} in {worst} to {most:.4g} in {first}."
    caption = f"{gathered.unit}: mean over seeds with its 95 % interval, stronger color for higher scores"
    return Section(title="Tasks", sentence=sentence, blocks=[TableBlock(caption, ("task", *table), rows)])


def interval_cell(one: Interval | None, low: float = 0.0, high: float = 0.0) -> PageCell:
    """An interval as a cell, whose color is stronger the nearer its mean is to `high`."""
    if one is None:
        return PageCell("-")
    return PageCell(interval_text(one), one.mean, (one.mean - low) / (high - low) if high > low else None)


def runs_section(gathered: Gathered) -> Section:
    """A row for each run, with its score and how far it has come."""
    metric, rows = gathered.comparison.metric, []
    for one in gathered.comparison.runs:
        steps = [[row.step for row in one.evaluations if row.phase == phase] for phase in ("offline", "online")]
        progress = [PageCell(f"{max(each):,}", max(each)) if each else PageCell("-") for each in steps]
        named = [gathered.names[one.run.path], one.label, short(one.environment), str(one.seed)]
        rows.append([*map(PageCell, named), *progress, PageCell(f"{one.values[metric]:.4g}", one.values[metric])])
    for run in gathered.unscored:
        record = gathered.records[run.path]
        named = [gathered.names[run.path], run.name, short(str(record.get("env"))), str(record.get("seed", "-"))]
        rows.append([*map(PageCell, named), *[PageCell("-")] * 3])
    what = "last evaluation" if gathered.last == 1 else f"mean of the last {gathered.last} evaluations"
    caption = f"Scores are those of the {what} of a phase; steps are those of the last evaluations"
    head = ("run", "label", "task", "seed", "offline steps", "online steps", gathered.unit)
    scores = [one.values[metric] for one in gathered.comparison.runs]
    lacking = f", and {count(len(gathered.unscored), 'run')} without" if gathered.unscored else ""
    sentence = f"{count(len(scores), 'run')} with scores from {min(scores):.4g} to {max(scores):.4g}{lacking}."
    return Section(title="Runs", sentence=sentence, blocks=[TableBlock(caption, head, rows)])
