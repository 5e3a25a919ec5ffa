"""`flowpolicies reproduce`: run published tables again, and print the results."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import tyro
from rich.console import Console
from rich.table import Table

from flowpolicies.cli.command import Command
from flowpolicies.cli.evaluation.compare import print_summary
from flowpolicies.cli.evaluation.forecast import forecast
from flowpolicies.cli.train import is_given, parse_train
from flowpolicies.comparison.summary import summarize
from flowpolicies.files import atomic_write, csv_text
from flowpolicies.messages import duration, say
from flowpolicies.reproduction.jobs import Job, Outcome, check_parallel, run_side_by_side
from flowpolicies.reproduction.published import PublishedScore, PublishedTable, load_table
from flowpolicies.reproduction.reproduce import PlannedRun, plan, without_twins
from flowpolicies.reproduction.scores import Score, compare_columns, deviations, read_scores
from flowpolicies.training.runs import RunFolder


@dataclass(frozen=True, kw_only=True)
class OfTable(Command):
    """Abstract base of the commands that select runs of a published table."""

    name: tyro.conf.Positional[str]
    """Name of a published table; `flowpolicies list tables` shows the names."""
    runs_dir: Path = Path("runs/reproduce")
    """Folder of the runs; each table has a folder of its name in it."""
    seeds: tuple[int, ...] = ()
    """Seeds of the runs. Default: the seeds of the table."""
    tasks: tuple[str, ...] = ()
    """Rows, environments or tasks, such as cube-double or cube-double-play-task2. Default: all."""
    algorithms: tuple[str, ...] = ()
    """Algorithms, or columns of the table. Default: all."""
    with_defaults: bool = False
    """Also run algorithms whose hyperparameters are not published, with their defaults; results mark them with *."""

    def plan(self, table: PublishedTable, extra: Sequence[str] = ()) -> tuple[list[PlannedRun], dict[str, list[str]]]:
        """The selected runs, and what is left out; see `flowpolicies.reproduction.reproduce.plan`."""
        return plan(
            table,
            self.runs_dir,
            seeds=self.seeds,
            tasks=self.tasks,
            algorithms=self.algorithms,
            with_defaults=self.with_defaults,
            extra=extra,
        )


@final
@dataclass(frozen=True, kw_only=True)
class ReproduceTable(OfTable):
    """Run a published table again: every algorithm, task and seed with the authors' hyperparameters.

    Finished runs are not repeated, and interrupted ones continue from their last checkpoint: to continue, give the same
    command again.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies reproduce table qflow-standard --algorithms qflow --tasks cube-single --seeds 0 1 --parallel 2",
        "flowpolicies reproduce table qflow-standard --dry-run",
    )

    dry_run: bool = False
    """Only print the runs, with state, algorithm, task, seed, preset and command; run nothing."""
    parallel: int = 1
    """Number of runs at the same time, each in its own process."""
    estimate: bool = True
    """Measure the time of an update of each algorithm before the runs begin, and print how long all updates take."""
    extra: str = ""
    """Additional flags of `flowpolicies train` for every run, in quotes, such as --extra "--eval-envs 4". Flags that
    change hyperparameters make the results incomparable with the paper."""

    def run(self, words: Sequence[str]) -> None:
        """Runs what is not done yet, and prints the table."""
        check_parallel(self.parallel)
        table, extra = load_table(self.name), shlex.split(self.extra)
        runs, left_out = self.plan(table, extra)
        print(f"{table.title}\nnote: {table.notes}")
        unique = without_twins(runs)
        others = done_otherwise(unique, table, extra)
        if self.dry_run:
            print("\n".join(run.describe("other") if run.folder in others else str(run) for run in unique))
        for algorithm, tasks in left_out.items():
            print(
                f"{algorithm}: no published hyperparameters for {_shorten(tasks)}; left out. "
                "Pass --with-defaults to run these tasks with the algorithm's defaults."
            )
        todo = [run for run in unique if not run.is_done]
        done = len(unique) - len(todo) - len(others)
        has_others = f", {len(others)} done with other settings" if others else ""
        print(f"{len(unique)} runs, {done} done{has_others}, {len(todo)} open.", flush=True)
        if others and not self.dry_run:
            folder, settings = next(iter(others.items()))
            raise ValueError(
                f"{len(others)} runs ended with other settings than this command's. The first one is in "
                f"'{folder.path}' and has {', '.join(f'{name}={value}' for name, value in settings.items())}. Pass the "
                "same --extra as then, choose another --runs-dir, or move or delete the folders of these runs."
            )
        for line in forecast(todo, self.parallel) if self.estimate else ():
            print(line, flush=True)
        if self.dry_run:
            return
        failed = self._run(todo)
        summarise(table, runs, self.runs_dir)
        if failed:
            raise ChildProcessError(f"{len(failed)} of {len(todo)} runs failed; their logs: {_shorten(failed)}")

    def _run(self, todo: Sequence[PlannedRun]) -> list[str]:
        """Runs what is to be done, and returns the logs of the runs that failed."""
        jobs = [Job(run.folder.path.name, (run.words,), run.folder.path.with_suffix(".log")) for run in todo]
        start, ended, failed = time.monotonic(), list[str](), list[str]()

        def report(outcome: Outcome) -> None:
            ended.append(outcome.job.name)
            left = (time.monotonic() - start) / len(ended) * (len(jobs) - len(ended))
            result = "done" if outcome.code == 0 else f"FAILED with exit code {outcome.code}, see {outcome.job.log}"
            say(
                f"[{len(ended)}/{len(jobs)}] {outcome.job.name}: {result} after {duration(outcome.seconds)}, "
                f"{duration(left)} left"
            )
            if outcome.code != 0:
                failed.append(str(outcome.job.log))
                say(f"    {_last_line(outcome.job.log)}")

        try:
            run_side_by_side(jobs, self.parallel, report)
        except KeyboardInterrupt:
            say(f"Interrupted after {len(ended)} of {len(jobs)} runs. The same command continues them.")
            raise
        return failed


@final
@dataclass(frozen=True, kw_only=True)
class ReproduceResults(OfTable):
    """Print the results of the runs of a table so far beside the published numbers, without running anything."""

    examples: ClassVar[tuple[str, ...]] = ("flowpolicies reproduce results qflow-standard",)

    def run(self, words: Sequence[str]) -> None:
        """Prints the table."""
        table = load_table(self.name)
        summarise(table, self.plan(table)[0], self.runs_dir)


def done_otherwise(
    runs: Sequence[PlannedRun], table: PublishedTable, extra: Sequence[str]
) -> dict[RunFolder, dict[str, Any]]:
    """Folder of each finished run whose settings are not those of this command -> its settings that differ."""
    one_each = {run.preset.algorithm: run for run in reversed(runs)}
    meant = {name: overrides(run, extra) for name, run in one_each.items()} if extra else {}
    found = {run.folder: deviations(run, table, meant.get(run.preset.algorithm, {})) for run in runs if run.is_done}
    return {folder: settings for folder, settings in found.items() if settings}


def overrides(run: PlannedRun, extra: Sequence[str]) -> dict[str, Any]:
    """Fields, and their values, that the flags of --extra set.

    Raises:
        ValueError: if the command line of the algorithm does not accept these flags.
    """
    try:
        parsed: Any = parse_train(run.words)
    except SystemExit as stop:  # tyro has printed the reason.
        program = f"`flowpolicies train {run.preset.algorithm}`"
        raise ValueError(f"{program} does not accept --extra {shlex.join(extra)!r}; nothing was run.") from stop
    parts = (parsed.hyperparameters, parsed.sb3_hyperparameters, parsed.settings)
    return {name: value for part in parts for name, value in vars(part).items() if is_given(name, extra)}


def summarise(table: PublishedTable, runs: Sequence[PlannedRun], runs_dir: Path) -> None:
    """Prints the scores of finished runs beside the published ones, and writes them to results.csv."""
    scores = read_scores(table, runs)
    if not scores:
        print("No run has an evaluation yet.")
        return
    done = [run for run in runs if run.is_done]
    guessed = {(run.row, run.column) for run in done if not run.is_published}
    changed = {(run.row, run.column) for run in done if deviations(run, table)}
    marks = {key: "*" * (key in guessed) + "!" * (key in changed) for key in scores}
    rows = [row for row in table.rows if any(key[0] == row for key in scores)]
    columns = [column for column in table.columns if any(key[1] == column for key in scores)]
    print(f"{table.title}: ours (runs) | published")
    texts = {
        (row, column): _cell(
            scores.get((row, column)), table.published.get((row, column)), marks.get((row, column), "")
        )
        for row in rows
        for column in columns
    }
    _print_cells(texts, rows, columns)
    if guessed:
        print("* Some of the runs used the algorithm's defaults, because no hyperparameters are published.")
    if changed:
        print("! Some of the runs had other settings than the published ones; see their config.json.")
    print_columns(table, runs)
    published = ("published_mean", "published_std", "published_settings")
    header = ("row", "column", "mean", "std", "runs", "low", "high", "iqm", "iqm_low", "iqm_high", *published)
    keys = [key for key in texts if key in scores]
    lines = [(*key, *scores[key].numbers(), *table.published.get(key, (None, None)), not marks[key]) for key in keys]
    path = runs_dir / table.name / "results.csv"
    with atomic_write(path) as file:
        file.write(csv_text([header, *lines]).encode())
    print(f"The numbers are in {path}")


def print_columns(table: PublishedTable, runs: Sequence[PlannedRun]) -> None:
    """Prints mean, interquartile mean and probability of improvement of the columns over the tasks that all have."""
    comparison = compare_columns(table, runs)
    if len(comparison.table) > 1 or len(comparison.environments) > 1:
        baseline = next(iter(comparison.table))
        tasks = f"{len(comparison.common)} of {len(comparison.environments)} tasks"
        print(f"\nOver the {tasks} that all columns have, with 95 % stratified bootstrap intervals over seeds:")
        print_summary(summarize(comparison, baseline), baseline)


def _cell(score: Score | None, published: PublishedScore | None, marks: str) -> str:
    """Our score with its number of runs, and the published one, such as "95.1±2! (8) | 96±1"."""
    if score is None:
        return f"- | {published or '-'}"
    std = "" if math.isnan(score.std) else f"±{score.std:.0f}"
    return f"{score.mean:.1f}{std}{marks} ({score.runs}) | {published or '-'}"


def _print_cells(texts: Mapping[tuple[str, str], str], rows: Sequence[str], columns: Sequence[str]) -> None:
    """Prints a table, whose rows are the algorithms if there are more of them than rows, so that it is less wide."""
    is_transposed = len(columns) > len(rows)
    across, down = (rows, columns) if is_transposed else (columns, rows)
    view = Table()
    view.add_column("")
    for name in across:
        view.add_column(name, justify="right")
    for name in down:
        view.add_row(name, *(texts[(other, name) if is_transposed else (name, other)] for other in across))
    Console(highlight=False, markup=False).print(view)


def _shorten(names: Sequence[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _last_line(log: Path) -> str:
    """The last line of a log that is not empty; for a failed run, the error message."""
    lines = [line.strip("╭╮╰╯│─ ") for line in log.read_text(errors="replace").split("\n")]
    return next((line for line in reversed(lines) if line), "(its log is empty)")
