"""`flowpolicies data check`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import gymnasium
from tqdm import tqdm

from flowpolicies.cli.dataset import OfDataset
from flowpolicies.data import DataFault, TransitionDataset, make_env
from flowpolicies.data.sources import environment_of
from flowpolicies.inspection import (
    SAMPLE,
    Finding,
    Inspection,
    Resimulate,
    inspect_dataset,
    open_resimulator,
)
from flowpolicies.inspection.report import to_html, to_text


@final
@dataclass(frozen=True, kw_only=True)
class Check(OfDataset):
    """Look for what makes training go wrong without an error. Exit code 0: clean, 1: faults, 2: could not check."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies data check ogbench:cube-single-play-singletask-v0 --html report.html",
        "flowpolicies data check npz:data.npz --env Pendulum-v1",
    )

    env: str | None = None
    """Environment to compare with: an address or a Gymnasium id; None: the one that the dataset's address names."""
    sample: int = SAMPLE
    """Rows that the expensive checks look at; the others read all."""
    html: Path | None = None
    """Also write the report to this file, with histograms."""

    def run(self, words: Sequence[str]) -> int:
        """Checks, prints the report, and returns the exit code."""
        if self.html is not None:  # Before a check that may take minutes.
            self.html.expanduser().parent.mkdir(parents=True, exist_ok=True)
        inspection = self._inspect()
        print(to_text(inspection))
        if self.html is not None:
            self.html.expanduser().write_text(to_html(inspection))
            print(f"Wrote '{self.html}'.")
        return 1 if inspection.num_faults else 0

    def _inspect(self) -> Inspection:
        try:
            dataset = self.load()
        except DataFault as error:
            return Inspection(self.address, {}, (refusal(error),), ())
        with ExitStack() as stack:
            made, unmade = self._open_environment(stack)
            resimulate, notes = self._open_resimulator(dataset)
            inspection = inspect_dataset(dataset, env=made, resimulate=resimulate, sample=self.sample, track=track)
        return inspection._replace(findings=inspection.findings + unmade + notes)

    def _open_environment(self, stack: ExitStack) -> tuple[gymnasium.Env[Any, Any] | None, tuple[Finding, ...]]:
        """The one that was asked for; or that of the dataset, if it has one that can be made."""
        env = self.env or environment_of(self.address, **self.options)
        try:
            return (None if env is None else stack.enter_context(closing(_make_env(env)))), ()
        except ValueError as error:
            if self.env is not None:
                raise
            return None, (Finding("environment", "info", f"not compared: {error}"),)

    def _open_resimulator(self, dataset: TransitionDataset) -> tuple[Resimulate | None, tuple[Finding, ...]]:
        try:
            return open_resimulator(self.address, dataset, **self.options), ()
        except ValueError as error:
            return None, (Finding("resimulation", "info", f"not re-simulated: {error}"),)


def _make_env(address: str) -> gymnasium.Env[Any, Any]:
    try:
        return make_env(address)
    except gymnasium.error.Error as error:
        raise ValueError(f"cannot make the environment '{address}': {error}") from error


def refusal(error: DataFault) -> Finding:
    """The fault for which the dataset could not even be built."""
    return Finding(
        "loading", "fault", f"the data cannot be loaded: {error}", "No other check was made; repair this first.", 1
    )


def track(blocks: Sequence[slice], title: str) -> Iterable[slice]:
    """Shows a progress bar, in a terminal."""
    bar: Iterable[slice] = tqdm(blocks, title, leave=False, disable=None, file=sys.stderr, delay=0.5)
    return bar
