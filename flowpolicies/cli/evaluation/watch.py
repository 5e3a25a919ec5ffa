"""`flowpolicies watch`: a view of runs in the terminal, while they train and afterwards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, final

import tyro
from rich.console import Console
from rich.live import Live

from flowpolicies.cli.command import Command

if TYPE_CHECKING:
    from flowpolicies.watching.status import RunStatus


@final
@dataclass(frozen=True, kw_only=True)
class Watch(Command):
    """Watch runs in the terminal: progress, remaining time, evaluations, losses, warnings and the newest checkpoint.

    It only reads the folders, also from another machine, and ends when no run can change any more.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies watch runs/qflow-cube-single-play-singletask-v0-seed0",
        "flowpolicies watch runs/",
        "flowpolicies watch runs/fql-* --once",
    )

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, and folders of runs. One run is shown with its curves, several runs as a table. LABEL=PATH gives a
    run a name in the table."""
    once: bool = False
    """Show the runs once, and exit. This is also done if the output is not a terminal."""
    every: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 2.0
    """Seconds between two looks at the files."""

    def run(self, words: Sequence[str]) -> None:
        """Shows the runs until none can change any more, or once."""
        from flowpolicies.watching.frames import picture

        if not self.every > 0:
            raise ValueError(
                f"--every is the number of seconds between two looks; it must be above 0, got {self.every}"
            )
        console = Console(highlight=False, markup=False)
        statuses = self._read()
        if self.once or not console.is_terminal:
            console.print(picture(statuses, console))
            return
        with Live(picture(statuses, console), console=console, auto_refresh=False) as live:
            while any(status.may_change for status in statuses.values()):
                time.sleep(self.every)
                statuses = self._read()
                live.update(picture(statuses, console), refresh=True)

    def _read(self) -> dict[str, RunStatus]:
        """The status of each run by its name. Runs may have been added to a folder since the last look."""
        from flowpolicies.comparison.runs import name_runs, short_names
        from flowpolicies.watching.status import read_status

        runs = name_runs(self.runs)
        names, labels = short_names(run.path for run in runs), [run.label for run in runs]
        found = {}
        for run in runs:
            is_alone = run.label is not None and labels.count(run.label) == 1
            name = run.label if is_alone else " ".join(filter(None, (run.label, names[run.path])))
            found[str(name)] = read_status(run.path)
        return found
