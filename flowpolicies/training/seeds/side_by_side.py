"""Runs that are trained side by side: each has its own files, and all are updated together."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from typing import final

from flowpolicies.training.callbacks import InterruptBetweenSteps
from flowpolicies.training.phases import IncompleteRunError, TrainingRun
from flowpolicies.training.seeds.together import InTurn, Vectorized, update_together
from flowpolicies.training.train import Prepared

ENDED = object()
"""What a loop that has ended returns."""


@final
class SideBySide:
    """Trains runs offline, and writes the files of each.

    All runs that are after the same number of updates take the next one together. Those behind, as after a damaged
    checkpoint or when seeds are added, catch up first.

    Args:
        prepared: the runs.
        names: their names in printed lines.
        swept: hyperparameters that differ between them.
    """

    def __init__(self, prepared: Sequence[Prepared], names: Sequence[str], swept: Sequence[str]) -> None:
        self.interrupt, self.swept = InterruptBetweenSteps(self), tuple(swept)
        self.runs = [one.open(interrupt=self.interrupt, name=name) for one, name in zip(prepared, names, strict=True)]
        self.updated: list[TrainingRun] = []
        """The runs that took the latest update, and have not ended."""
        behind = min(self.runs, key=lambda run: run.model.offline_steps)
        behind.progress.disable, behind.progress.label = None, f", {len(self.runs)} runs"

    @property
    def seconds(self) -> float:
        """How long the latest checkpoints of all runs took."""
        return sum(run.checkpoint.seconds for run in self.runs)

    def save(self) -> None:
        """Saves checkpoints of the runs that took the latest update."""
        for run in self.updated:
            run.checkpoint.save()

    def run(self) -> None:
        """Trains what is left of all runs, and writes their files. The logs are flushed whatever happens.

        Raises:
            IncompleteRunError: if the models are saved, but other files could not be written.
            KeyboardInterrupt: after Ctrl-C or SIGTERM, when the last checkpoints have been written.
        """
        try:
            with self.interrupt:
                for run in self.runs:
                    run.begin()
                self._offline()
                for run in self.runs:
                    run.evaluate_offline()
                self._save_results()
        except KeyboardInterrupt:
            for run in self.runs:
                run.progress.close()
            for run in self.runs:
                run.save_stopped()
            raise
        finally:
            for run in self.runs:
                run.close()

    def _offline(self) -> None:
        """The offline phase of all runs. A signal is answered when all runs are between two steps."""
        with ExitStack() as stack:
            loops = {run: stack.enter_context(closing(run.offline())) for run in self.runs}
            waiting = _advance(loops, self.runs)
            together: Vectorized | InTurn | None = None
            while waiting:
                least = min(run.model.offline_steps for run in waiting)
                group = [run for run in waiting if run.model.offline_steps == least]
                if together is None or together.models != [run.model for run in group]:
                    if together is not None:
                        together.release()
                    together = update_together([run.model for run in group], self.swept)
                together.train()
                self.updated = _advance(loops, group)
                waiting = [run for run in waiting if run not in group or run in self.updated]
                self.interrupt.save_and_stop_if_asked()
            if together is not None:
                together.release()

    def _save_results(self) -> None:
        failed = []
        for run in self.runs:
            try:
                run.save_results()
            except IncompleteRunError as error:  # The others are saved all the same.
                failed.append(str(error))
        if failed:
            raise IncompleteRunError(" ".join(failed))


def _advance(loops: dict[TrainingRun, Generator[None]], runs: Sequence[TrainingRun]) -> list[TrainingRun]:
    """Lets each run continue up to its next update; returns those that have one."""
    return [run for run in runs if next(loops[run], ENDED) is not ENDED]
