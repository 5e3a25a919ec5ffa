"""Settings of the local benchmark, which the help of the command line shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from flowpolicies.shell.fields import NonNegativeInt, check_fields


@final
@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """Which part of the local benchmark is run, on how many processes, and where its files are."""

    datasets: tuple[str, ...] = ()
    """Datasets, such as pointmaze-medium; --dry-run prints all. Default: all."""
    algorithms: tuple[str, ...] = ()
    """Algorithms, such as fql; --dry-run prints all. Default: all."""
    seeds: tuple[NonNegativeInt, ...] = ()
    """Seeds of the reported runs. The sweep has a seed of its own, which is never reported.
    Default: the seeds of the benchmark."""
    steps: int | None = None
    """Offline gradient steps of each run. Results with other steps than those of the benchmark are no part of it, and
    have a folder of their own. None: those of the benchmark."""
    online_steps: NonNegativeInt | None = None
    """Environment steps of online training after the offline steps, as for --steps. None: those of the benchmark."""
    workers: int = 2
    """Number of runs side by side, each in a process with one thread."""
    runs_dir: Path | None = None
    """Folder of the runs. None: runs/reproduce/local, or runs/reproduce/local-STEPS-ONLINE for other steps."""
    results_dir: Path | None = None
    """Folder of the results: local.csv, local.md and the figures. Runs whose rows are in its local.csv are not
    repeated, even if their folders are gone. None: the folder of the runs."""
    data_dir: Path = Path("~/.cache/flowpolicies/local")
    """Folder of the generated data."""

    def __post_init__(self) -> None:
        check_fields(self)
