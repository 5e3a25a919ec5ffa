"""`flowpolicies compare` and `plot`: runs beside each other, as tables and as figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import tyro
from rich.console import Console
from rich.table import Table

from flowpolicies.cli.command import Command
from flowpolicies.comparison.summary import Summary, choose_baseline, interval_text, notes, summarize
from flowpolicies.files import write_json
from flowpolicies.policies.intervals import Interval

if TYPE_CHECKING:
    from flowpolicies.comparison.scores import ScoreTable
    from flowpolicies.training.evaluations import EvaluationRow


@final
@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Compare runs, grouped by algorithm: means, interquartile means and probabilities of improvement, with intervals.

    Published numbers of the same algorithms and tasks are printed beside.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies compare runs/",
        "flowpolicies compare runs/fql-* runs/qflow-* --baseline fql --out comparison.png",
        "flowpolicies compare small=runs/small wide=runs/wide results.jsonl --json comparison.json",
    )

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, folders of runs, and results files of `flowpolicies evaluate --out`. Runs of one algorithm form a
    group; LABEL=PATH puts a run or all runs of a folder in a group of its own."""
    baseline: str | None = None
    """Label that the others are compared with by their probability of improvement. None: that of the first run."""
    metric: Literal["success", "score", "return"] | None = None
    """Quantity to compare: success in percent, D4RL's normalised score, or the return.
    None: the first of score, success and return that all runs have."""
    phase: Literal["offline", "online"] | None = None
    """Phase whose evaluations count, for run folders. None: the phase in which each run ended."""
    last: int = 1
    """Number of last evaluations of a run that are averaged, for run folders."""
    out: Path | None = None
    """Figure to write, whose ending names the format, such as comparison.png. None: only print the numbers."""
    json: Path | None = None
    """JSON file to write the numbers to, with the score of each run. None: only print the numbers."""

    def run(self, words: Sequence[str]) -> None:
        """Prints the tables, and writes the figure."""
        from flowpolicies.comparison.scores import UNITS, compare, mixed_settings, read_scores

        runs = read_scores(self.runs, phase=self.phase, last=self.last)
        comparison = compare(runs, self.metric)
        baseline = choose_baseline(comparison, self.baseline)
        print(f"{len(runs)} runs, {UNITS[comparison.metric]}, with 95 % stratified bootstrap intervals over seeds:")
        summary = summarize(comparison, baseline)
        print_summary(summary, baseline)
        _print_tasks(comparison)
        published = _print_published(comparison)
        for note in notes(comparison, mixed_settings(runs)):
            print(f"note: {note}")
        if self.json is not None:
            write_json(self.json, _to_json(comparison, baseline, summary, published))
        if self.out is not None:
            from flowpolicies.comparison.figures import draw_comparison

            print(f"Wrote {draw_comparison(comparison, baseline, self.out)}")


def print_summary(summary: Summary, baseline: str) -> None:
    """Prints a row for each label."""
    table = Table()
    table.add_column("")
    for column in ("runs", "mean", "interquartile mean", f"P(better than {baseline})"):
        table.add_column(column, justify="right")
    for label, one in summary.items():
        table.add_row(label, str(one["runs"]), *(interval_text(one[name]) for name in ("mean", "iqm", "better")))
    Console(highlight=False, markup=False).print(table)


def _print_tasks(comparison: ScoreTable) -> None:
    """Prints the mean over seeds of each label in each environment, if there are several environments."""
    from flowpolicies.comparison.statistics import mean_over_tasks

    if len(comparison.environments) < 2:
        return
    table = Table(title="mean over seeds")
    table.add_column("", overflow="fold")
    for label in comparison.table:
        table.add_column(label, justify="right")
    for name in comparison.environments:
        cells = [
            interval_text(mean_over_tasks(comparison.groups(label, [name]))) if name in each else "-"
            for label, each in comparison.table.items()
        ]
        table.add_row(name.partition(":")[2] or name, *cells)
    Console(highlight=False, markup=False).print(table)


def _print_published(comparison: ScoreTable) -> list[dict[str, Any]]:
    """Prints published numbers of the same algorithms and tasks, and returns them as JSON data."""
    from flowpolicies.comparison.statistics import mean_over_tasks
    from flowpolicies.reproduction.beside import published_of

    found: list[dict[str, Any]] = []
    for label, one in published_of(comparison):
        ours = mean_over_tasks(comparison.groups(label, one.environments))
        part = "" if len(one.environments) == one.tasks else f", {len(one.environments)} of its {one.tasks} tasks"
        found.append({"label": label, **one._asdict(), "score": one.score._asdict(), "ours": ours._asdict()})
        print(
            f"published: {one.table}, {one.row}, {one.column}: {one.score} (ours, {label}{part}: {interval_text(ours)})"
        )
    return found


def _to_json(
    comparison: ScoreTable, baseline: str, summary: Summary, published: list[dict[str, Any]]
) -> dict[str, Any]:
    plain = {
        label: {name: value._asdict() if isinstance(value, Interval) else value for name, value in one.items()}
        for label, one in summary.items()
    }
    return {
        "metric": comparison.metric,
        "baseline": baseline,
        "environments": comparison.environments,
        "common": comparison.common,
        "labels": plain,
        "scores": comparison.table,
        "published": published,
    }


@final
@dataclass(frozen=True, kw_only=True)
class Plot(Command):
    """Draw the learning curves of runs, one for each algorithm, with bands over their seeds; a panel for each task."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies plot runs/ --out curves.png",
        "flowpolicies plot runs/fql-* wide=runs/qflow-wide --out curves.pdf --metric return",
    )

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders and folders of runs. Runs of one algorithm form a curve; LABEL=PATH makes a curve of its own."""
    out: Path = Path("curves.png")
    """Figure to write, whose ending names the format: .png, .pdf or .svg."""
    metric: Literal["success", "return"] | None = None
    """Quantity to draw. None: success if all runs report it, otherwise the return."""

    def run(self, words: Sequence[str]) -> None:
        """Draws the figure, and prints where it is."""
        panels = self._panels()
        from flowpolicies.training.plots import plot_panels

        print(f"Wrote {plot_panels(panels, self.out, metric=self.metric)}")

    def _panels(self) -> dict[str, dict[str, list[EvaluationRow]]]:
        from flowpolicies.comparison.runs import name_runs
        from flowpolicies.training.runs import RunFolder

        panels: dict[str, dict[str, list[EvaluationRow]]] = {}
        for run in name_runs(self.runs):
            record, rows = RunFolder(run.path).read_config(), RunFolder(run.path).read_evaluations()
            if not rows:
                print(f"note: '{run.path}' has no evaluations yet and is left out.")
                continue
            curves = panels.setdefault(str(record.get("env")), {})
            curves.setdefault(run.name, []).extend(rows)
        if not panels:
            raise ValueError("none of these runs has an evaluation to draw; train with --eval-episodes of at least 1.")
        return {name.partition(":")[2] or name: curves for name, curves in panels.items()}
