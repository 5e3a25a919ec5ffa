"""`flowpolicies diagnose`: what is wrong with a run, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import tyro

from flowpolicies.cli.command import Command
from flowpolicies.files import write_json
from flowpolicies.shell.fields import NonNegativeInt
from flowpolicies.training.runs import RunFolder


@final
@dataclass(frozen=True, kw_only=True)
class Diagnose(Command):
    """Say what is wrong with a run and what to do: values, flow, gradients and actions, each with a threshold.

    The exit code is 1 if a reading is bad.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies diagnose runs/qflow-pointmaze-medium-navigate-singletask-task1-v0-seed0",
        "flowpolicies diagnose runs/qflow-pointmaze-medium-navigate-singletask-task1-v0-seed0 --episodes 0 "
        "--json diagnosis.json",
    )

    run_dir: tyro.conf.Positional[Path]
    """Folder of the run, which may still be in progress."""
    dataset: str | None = None
    """Address of the dataset. None: that of the run."""
    data_dir: Path | None = None
    """Folder of the dataset's files. None: that of the run."""
    env: str | None = None
    """Environment: an address or a Gymnasium id. None: that of the run, if it has one."""
    episodes: NonNegativeInt = 8
    """Number of episodes of the policy, whose starts and returns are compared with values. 0: none, which is faster;
    the starts are then those of the dataset's episodes."""
    samples: int = 1024
    """Number of transitions that are looked at."""
    seed: NonNegativeInt = 0
    """Seed of the transitions, of the noise and of the episodes."""
    json: Path | None = None
    """JSON file to write the readings to. None: only print them."""
    device: str = "auto"
    """Torch device, such as cpu or cuda:1. auto: CUDA if it is available."""

    def run(self, words: Sequence[str]) -> int:
        """Diagnoses the run, prints the readings, and returns the exit code."""
        folder = RunFolder(self.run_dir)
        folder.read_config()  # A folder that is not one of a run is reported before torch is imported.
        from flowpolicies.diagnostics import diagnose
        from flowpolicies.diagnostics.runs import open_run

        with ExitStack() as stack:
            model, env = open_run(
                folder,
                stack,
                dataset=self.dataset,
                data_dir=self.data_dir,
                env=self.env,
                episodes=self.episodes,
                seed=self.seed,
                device=self.device,
            )
            found = diagnose(model, env, samples=self.samples, seed=self.seed)
        print(found)
        if self.json is not None:
            write_json(self.json, found.to_json())
            print(f"Wrote '{self.json}'.")
        return int(found.judgement == "bad")
