"""`flowpolicies data check`: look for faults in a dataset."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

from flowpolicies import data, inspection
from flowpolicies.artifacts import ArtifactError
from flowpolicies.cli.dataset import OfDataset
from flowpolicies.files import atomic_write

if TYPE_CHECKING:
    import gymnasium

    from flowpolicies.data import DataFault, TransitionDataset
    from flowpolicies.inspection import Finding, Inspection, Resimulate


@final
@dataclass(frozen=True, kw_only=True)
class Check(OfDataset):
    """Look for faults in a dataset that spoil training without an error message.

    Exit codes: 0 if there are no faults, 1 if there are, 2 if the dataset could not be checked.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies data check ogbench:cube-single-play-singletask-v0 --html report.html",
        "flowpolicies data check npz:data.npz --env Pendulum-v1",
    )

    env: str | None = None
    """Environment to compare the dataset with: an address or a Gymnasium id.
    None: the environment that the dataset's address names, if there is one."""
    sample: int = inspection.SAMPLE
    """Number of rows that the slow checks read; the other checks read all rows."""
    html: Path | None = None
    """HTML file to write the report to, with histograms. None: only print the report."""

    def run(self, words: Sequence[str]) -> int:
        """Checks, prints the report, and returns the exit code."""
        data.check_address(self.address, **self.options)
        if self.html is not None:  # A wrong path is reported before the check, which may take minutes.
            self.html.expanduser().parent.mkdir(parents=True, exist_ok=True)
        from flowpolicies.inspection.report import to_html, to_text

        found = self._inspect()
        print(to_text(found))
        if self.html is not None:
            with atomic_write(self.html.expanduser()) as file:
                file.write(to_html(found).encode())
            print(f"Wrote '{self.html}'.")
        return 1 if found.num_faults else 0

    def _inspect(self) -> Inspection:
        try:
            dataset = self.load()
        except data.DataFault as error:
            return inspection.Inspection(self.address, {}, (refusal(error),), ())
        with ExitStack() as stack:
            made, unmade = self._open_environment(stack)
            resimulate, notes = self._open_resimulator(dataset)
            found = inspection.inspect_dataset(
                dataset, env=made, resimulate=resimulate, sample=self.sample, track=track
            )
        own = {finding.check for finding in (*unmade, *notes)}  # The reason that the source gives is the better one.
        others = tuple(finding for finding in found.not_judged if finding.check not in own)
        return found._replace(not_judged=(*unmade, *notes, *others))

    def _open_environment(self, stack: ExitStack) -> tuple[gymnasium.Env[Any, Any] | None, tuple[Finding, ...]]:
        """The environment of --env, or that of the dataset; None and a finding if the latter cannot be made."""
        from flowpolicies.data.sources import environment_of
        from flowpolicies.inspection.findings import not_judged

        env = self.env or environment_of(self.address, **self.options)
        try:
            return (None if env is None else stack.enter_context(closing(_make_env(env)))), ()
        except ValueError as error:
            if self.env is not None:
                raise
            return None, (not_judged("environment", str(error)),)

    def _open_resimulator(self, dataset: TransitionDataset) -> tuple[Resimulate | None, tuple[Finding, ...]]:
        from flowpolicies.inspection.findings import not_judged

        try:
            return inspection.open_resimulator(self.address, dataset, **self.options), ()
        except ValueError as error:
            return None, (not_judged("resimulation", str(error)),)


def _make_env(address: str) -> gymnasium.Env[Any, Any]:
    import gymnasium

    try:
        return data.make_env(address)
    except gymnasium.error.Error as error:
        raise ValueError(f"cannot make the environment '{address}': {error}") from error


def refusal(error: DataFault) -> Finding:
    """The finding for a dataset that cannot be loaded because of a fault."""
    # The heading of the report names the file already.
    problem = error.problem if isinstance(error, ArtifactError) else error
    return inspection.Finding(
        "loading",
        "fault",
        f"the data cannot be loaded: {problem}",
        "Repair this first; the other checks need a dataset that can be loaded.",
        1,
    )


def track(blocks: Sequence[slice], title: str) -> Iterable[slice]:
    """Shows a progress bar if the output is a terminal."""
    from tqdm import tqdm

    bar: Iterable[slice] = tqdm(blocks, title, leave=False, disable=None, file=sys.stderr, delay=0.5)
    return bar
