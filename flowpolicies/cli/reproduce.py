"""`flowpolicies reproduce`: the runs of published tables."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import tyro
from rich.console import Console
from rich.table import Table

from flowpolicies.cli.command import Command
from flowpolicies.cli.train import is_given, parse_train
from flowpolicies.files import atomic_write, csv_text
from flowpolicies.reproduction.jobs import Job, Outcome, run_side_by_side
from flowpolicies.reproduction.published import PublishedTable, load_table
from flowpolicies.reproduction.reproduce import Run, plan, without_twins
from flowpolicies.reproduction.scores import collect, deviations
from flowpolicies.training.callbacks import say
from flowpolicies.training.runs import RunFolder


@dataclass(frozen=True, kw_only=True)
class OfTable(Command):
    """Abstract: which runs of which table."""

    name: tyro.conf.Positional[str]
    """Of the table; `flowpolicies list tables` shows them."""
    runs_dir: Path = Path("runs/reproduce")
    """Runs are in a folder of the table's name in it."""
    seeds: tuple[int, ...] = ()
    """Seeds; none: those of the table."""
    tasks: tuple[str, ...] = ()
    """Rows, environments or tasks, such as cube-double or cube-double-play-task2; none: all."""
    algorithms: tuple[str, ...] = ()
    """Columns; none: all."""
    with_defaults: bool = False
    """Also algorithms whose hyperparameters are not published, with their defaults; the result marks them by *."""

    def plan(self, table: PublishedTable, extra: Sequence[str] = ()) -> tuple[list[Run], dict[str, list[str]]]:
        """The runs, and what is left out; see `training.reproduce.plan`."""
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

    What is done is not run again, and an interrupted run goes on from its last checkpoint; the same command continues.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies reproduce table qflow-standard --dry-run",
        "flowpolicies reproduce table qflow-standard --algorithms qflow --tasks cube-single --seeds 0 1 --parallel 2",
    )

    dry_run: bool = False
    """Only print the runs: state, algorithm, task, seed, preset, command."""
    parallel: int = 1
    """Runs side by side, in processes of their own."""
    extra: str = ""
    """Flags for every run, as one word, such as --extra "--eval-envs 4"; other settings are no longer the paper's."""

    def run(self, words: Sequence[str]) -> None:
        """Runs what is open, and prints the table."""
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
                "--with-defaults runs them with the algorithm's defaults."
            )
        todo = [run for run in unique if not run.is_done]
        done = len(unique) - len(todo) - len(others)
        has_others = f", {len(others)} done with other settings" if others else ""
        print(f"{len(unique)} runs, {done} done{has_others}, {len(todo)} open.", flush=True)
        if self.dry_run:
            return
        if others:
            folder, settings = next(iter(others.items()))
            raise ValueError(
                f"{len(others)} runs ended with other settings than this command's, the first of them, in "
                f"'{folder.path}', with {', '.join(f'{name}={value}' for name, value in settings.items())}. Pass the "
                "--extra that they had, choose another --runs-dir, or delete their folders."
            )
        failed = self._run(todo)
        summarise(table, runs, self.runs_dir)
        if failed:
            raise ChildProcessError(f"{len(failed)} of {len(todo)} runs failed; their logs: {_shorten(failed)}")

    def _run(self, todo: Sequence[Run]) -> list[str]:
        """Logs of the runs that failed."""
        jobs = [Job(run.folder.path.name, (run.words,), run.folder.path.with_suffix(".log")) for run in todo]
        start, ended, failed = time.monotonic(), list[str](), list[str]()

        def report(outcome: Outcome) -> None:
            ended.append(outcome.job.name)
            left = (time.monotonic() - start) / len(ended) * (len(jobs) - len(ended))
            result = "done" if outcome.code == 0 else f"FAILED with exit code {outcome.code}, see {outcome.job.log}"
            say(
                f"[{len(ended)}/{len(jobs)}] {outcome.job.name}: {result} after {_duration(outcome.seconds)}, "
                f"{_duration(left)} left"
            )
            if outcome.code != 0:
                failed.append(str(outcome.job.log))
                say(f"    {_last_line(outcome.job.log)}")

        try:
            run_side_by_side(jobs, self.parallel, report)
        except KeyboardInterrupt:
            say(f"Interrupted after {len(ended)} of {len(jobs)} runs. The same command goes on where they stopped.")
            raise
        return failed


@final
@dataclass(frozen=True, kw_only=True)
class ReproduceResults(OfTable):
    """Print what the runs of a table have found so far beside the published numbers, and run nothing."""

    examples: ClassVar[tuple[str, ...]] = ("flowpolicies reproduce results qflow-standard",)

    def run(self, words: Sequence[str]) -> None:
        """Prints the table."""
        table = load_table(self.name)
        summarise(table, self.plan(table)[0], self.runs_dir)


def done_otherwise(runs: Sequence[Run], table: PublishedTable, extra: Sequence[str]) -> dict[RunFolder, dict[str, Any]]:
    """Runs that are done, but not as this command would do them, and what they had."""
    one_each = {run.preset.algorithm: run for run in reversed(runs)}
    meant = {name: overrides(run, extra) for name, run in one_each.items()} if extra else {}
    found = {run.folder: deviations(run, table, meant.get(run.preset.algorithm, {})) for run in runs if run.is_done}
    return {folder: settings for folder, settings in found.items() if settings}


def overrides(run: Run, extra: Sequence[str]) -> dict[str, Any]:
    """The fields that are set by words at the end of a run's command line.

    Raises:
        ValueError: if the algorithm does not understand them.
    """
    try:
        parsed: Any = parse_train(run.words)
    except SystemExit as stop:  # tyro has printed what is wrong.
        program = f"`flowpolicies train {run.preset.algorithm}`"
        raise ValueError(f"{program} does not understand --extra {shlex.join(extra)!r}; nothing was run.") from stop
    parts = (parsed.hyperparameters, parsed.knobs, parsed.settings)
    return {name: value for part in parts for name, value in vars(part).items() if is_given(name, extra)}


def summarise(table: PublishedTable, runs: Sequence[Run], runs_dir: Path) -> None:
    """Ours beside the paper's, on the screen and in results.csv."""
    scores = collect(table, runs)
    if not scores:
        print("No run has an evaluation yet.")
        return
    done = [run for run in runs if run.is_done]
    guessed = {(run.row, run.column) for run in done if not run.is_published}
    changed = {(run.row, run.column) for run in done if deviations(run, table)}
    columns = [column for column in table.columns if any(key[1] == column for key in scores)]
    print(f"{table.title}: ours (runs) | published")
    view = Table()
    view.add_column("")
    for column in columns:
        view.add_column(column, justify="right")
    rows, lines = [row for row in table.rows if any(key[0] == row for key in scores)], list[tuple[object, ...]]()
    for row in rows:
        cells = []
        for column in columns:
            score, cell = scores.get((row, column)), table.published.get((row, column))
            std = "" if score is None or math.isnan(score.std) else f"±{score.std:.0f}"
            marks = "*" * ((row, column) in guessed) + "!" * ((row, column) in changed)
            ours = "-" if score is None else f"{score.mean:.1f}{std}{marks} ({score.runs})"
            cells.append(f"{ours} | {cell or '-'}")
            if score is not None:
                lines.append((row, column, *score, *(cell or (None, None)), not marks))
        view.add_row(row, *cells)
    Console(highlight=False, markup=False).print(view)
    if guessed:
        print("* the algorithm's defaults in some of the runs: their hyperparameters are not published.")
    if changed:
        print("! other settings than the published ones in some of the runs, see their config.json.")
    header = ("row", "column", "mean", "std", "runs", "published_mean", "published_std", "published_settings")
    path = runs_dir / table.name / "results.csv"
    with atomic_write(path) as file:
        file.write(csv_text([header, *lines]).encode())
    print(f"The numbers are in {path}")


def _shorten(names: Sequence[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _last_line(log: Path) -> str:
    """Where an error stands."""
    lines = [line.strip("╭╮╰╯│─ ") for line in log.read_text(errors="replace").split("\n")]
    return next((line for line in reversed(lines) if line), "(its log is empty)")


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.0f} s"
