"""Measures the time from an observation to an action, beside a policy in JAX and Stable-Baselines3's SAC.

    python benchmarks/act.py                                # all rows, on one core
    python benchmarks/act.py --rows flow one_step --out act.json

`flowpolicies bench act` does the same, and compares the results with the last ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from flowpolicies.benchmarking.act import measure_act
from flowpolicies.files import write_json


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and for how long."""

    rows: tuple[str, ...] = ()
    """Rows to measure. Default: all."""
    seconds: float = 3.0
    """Seconds for each variant of a row."""
    out: Path | None = None
    """JSON file of the results. None: they are only printed."""


def main() -> None:
    settings = tyro.cli(Settings)
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # JAX takes as many threads as the process may use cores.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results = measure_act(settings.rows, seconds=settings.seconds)
    if settings.out is not None:
        write_json(settings.out, results)


if __name__ == "__main__":
    main()
