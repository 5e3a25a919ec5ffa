"""`flowpolicies reproduce table local`: a benchmark of many algorithms on data that this machine generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

import tyro

from flowpolicies.cli.command import Command
from flowpolicies.messages import duration
from flowpolicies.reproduction.local.settings import LocalSettings

if TYPE_CHECKING:
    from flowpolicies.reproduction.local.run import LocalTable


@final
@dataclass(frozen=True, kw_only=True)
class ReproduceLocal(Command):
    """Run the local benchmark: ten algorithms on generated data, with a small sweep, offline and then online.

    Finished runs are not repeated, and interrupted ones continue from their last checkpoint: to continue, give the same
    command again. Parts that are run one after the other, such as one dataset each time, make the same table.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies reproduce table local --dry-run",
        "flowpolicies reproduce table local --workers 2 --results-dir docs/results",
        "flowpolicies reproduce table local --datasets pointmaze-medium --algorithms bc ifql --seeds 0",
    )

    settings: tyro.conf.OmitArgPrefixes[LocalSettings]
    dry_run: bool = False
    """Only print the runs that are not done, with their commands, and what they cost; run nothing."""

    def run(self, words: Sequence[str]) -> None:
        """Runs what is not done yet, and writes the results."""
        table = _open(self.settings)
        if self.dry_run:
            _print_plan(table)
            return
        try:
            table.run()
        except KeyboardInterrupt:
            print("Interrupted. The same command continues.", flush=True)
            raise


@final
@dataclass(frozen=True, kw_only=True)
class LocalResults(Command):
    """Write the results of the local benchmark so far, with page and figures, without running anything."""

    examples: ClassVar[tuple[str, ...]] = ("flowpolicies reproduce results local",)

    settings: tyro.conf.OmitArgPrefixes[LocalSettings]

    def run(self, words: Sequence[str]) -> None:
        """Writes the results."""
        _open(self.settings).write()


def _open(settings: LocalSettings) -> LocalTable:
    from flowpolicies.reproduction.local.benchmark import load_benchmark
    from flowpolicies.reproduction.local.run import LocalTable

    return LocalTable(load_benchmark(), settings)


def _print_plan(table: LocalTable) -> None:
    """Prints the runs that are not done, and the estimated costs of each algorithm and dataset."""
    progress, costs = table.estimate(), dict.fromkeys((*table.algorithms, *table.datasets, "all"), 0.0)
    runs = table.open_runs()
    for run in runs:
        print(f"{run.key.stage}  {' '.join(('flowpolicies', *run.words))}")
        for name in (run.key.algorithm, run.key.dataset, "all"):
            costs[name] += progress.cost(run) / 3600
    print(f"{len(runs)} runs to be done, of which the reported ones have the middle value of the sweep above.")
    for name, hours in costs.items():
        print(f"  {name}: {hours:.2f} core-hours")
    print(f"{duration(progress.seconds_left())} with {table.settings.workers} workers, without generating the data.")
