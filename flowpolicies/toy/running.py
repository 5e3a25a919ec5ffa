"""Runs the 2D experiments: what is missing is trained, side by side or in this process, then figures are drawn."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tqdm import tqdm

from flowpolicies.files import atomic_write, write_json
from flowpolicies.reproduction.demo.progress import Progress
from flowpolicies.reproduction.jobs import Job, Outcome, run_side_by_side
from flowpolicies.toy.costs import measure_costs
from flowpolicies.toy.methods import check_methods
from flowpolicies.toy.settings import Chain, ToyCell, ToySettings, chains, words_of, work_of
from flowpolicies.toy.training import folder_of, train_cell

UNIT = "{method} update"
"""Name of a unit of work."""


def run_toy(settings: ToySettings) -> None:
    """Trains what is missing, and draws what the folder holds.

    Raises:
        ValueError: for an algorithm without the coefficient that is swept, and if the folder holds trainings of
            another size.
        RuntimeError: if a training failed; the message names its log.
    """
    if not settings.only_draw:
        check_methods(settings)
        _check_folder(settings)
        _train_missing(settings)
    if settings.only_train:
        return
    from flowpolicies.toy.report import write_results  # Matplotlib is imported when there is something to draw.

    write_results(settings)


def _train_missing(settings: ToySettings) -> None:
    """Trains what is missing, and then, when the machine is idle again, times updates."""
    missing = [chain for chain in chains(settings) if _missing(chain, settings)]
    if missing and settings.workers == 1:
        _train_here(missing, settings)
    elif missing:
        _train_side_by_side(missing, settings)
    if not settings.only_train and not (settings.run_dir / "costs.json").is_file():
        write_json(settings.run_dir / "costs.json", measure_costs(settings))


def _check_folder(settings: ToySettings) -> None:
    """Raises a ValueError if the folder holds trainings of another size, else writes the sizes into it."""
    path, mine = settings.run_dir / "settings.json", settings.recorded()
    if path.is_file() and json.loads(path.read_text()) != mine:
        raise ValueError(
            f"'{settings.run_dir}' holds 2D experiments of another size (see settings.json there). "
            "Choose another --run-dir, give the same sizes, or pass --only-draw."
        )
    write_json(path, mine)


def _missing(chain: Chain, settings: ToySettings) -> list[ToyCell]:
    return [cell for cell in chain.cells if not folder_of(cell, settings).is_dir()]


def _progress_file(chain: Chain, settings: ToySettings) -> Path:
    return settings.run_dir / "progress" / f"{chain.name}.txt"


def _total(chain: Chain, settings: ToySettings) -> int:
    return sum(work_of(cell, settings) for cell in chain.cells)


def _train_here(missing: list[Chain], settings: ToySettings) -> None:
    """Trains in this process, with the number of updates so far in a file for a parent process."""
    bar = _Bar(missing, settings)
    for chain in missing:
        todo = _missing(chain, settings)
        done = _total(chain, settings) - sum(work_of(cell, settings) for cell in todo)
        bar.start(chain, done)
        for cell in todo:

            def advance(updates: int, chain: Chain = chain) -> None:
                nonlocal done
                done += updates
                with atomic_write(_progress_file(chain, settings)) as file:
                    file.write(str(done).encode())
                bar.observe(chain, done)

            train_cell(cell, settings, advance)
        bar.end(chain)
    bar.close()


def _train_side_by_side(missing: list[Chain], settings: ToySettings) -> None:
    bar, running = _Bar(missing, settings), dict[str, Chain]()
    by_name = {chain.name: chain for chain in missing}
    for chain in missing:
        _progress_file(chain, settings).unlink(missing_ok=True)

    def starting(job: Job) -> None:
        chain = running[job.name] = by_name[job.name]
        left = sum(work_of(cell, settings) for cell in _missing(chain, settings))
        bar.start(chain, _total(chain, settings) - left)

    def report(outcome: Outcome) -> None:
        if outcome.code != 0:
            tail = "\n".join(outcome.job.log.read_text(errors="replace").splitlines()[-15:])
            raise RuntimeError(f"{outcome.job.name} failed; the end of {outcome.job.log}:\n{tail}")
        bar.end(running.pop(outcome.job.name))

    def watch() -> None:
        for chain in running.values():
            path = _progress_file(chain, settings)
            if path.is_file():
                bar.observe(chain, int(path.read_text()))
        bar.show()

    jobs = [Job(c.name, (words_of(c, settings),), settings.run_dir / "logs" / f"{c.name}.log") for c in missing]
    run_side_by_side(jobs, settings.workers, report, threads=1, starting=starting, watch=watch, watch_seconds=0.5)
    bar.close()


class _Bar:
    """A progress bar over the updates of several processes, whose remaining time follows from measured costs."""

    def __init__(self, missing: list[Chain], settings: ToySettings) -> None:
        work = {chain.name: _units(chain, _total(chain, settings)) for chain in missing}
        self._progress = Progress(work, settings.workers)
        self._bar = tqdm(
            total=1.0,
            desc="training",
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far{postfix}",
            miniters=0,
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
        )

    def start(self, chain: Chain, done: int) -> None:
        self._progress.start(chain.name, _units(chain, done, starts=0))

    def observe(self, chain: Chain, done: int) -> None:
        self._progress.observe(chain.name, _units(chain, done))
        self.show()

    def end(self, chain: Chain) -> None:
        self._progress.end(chain.name)
        tqdm.write(f"{chain.name}: done")
        self.show()

    def show(self) -> None:
        left = tqdm.format_interval(self._progress.seconds_left())
        self._bar.set_postfix_str(f"about {left} left", refresh=False)
        self._bar.update(max(0.0, self._progress.share_done() - self._bar.n))

    def close(self) -> None:
        self._bar.close()


def _units(chain: Chain, done: int, starts: int = 1) -> dict[str, int]:
    """Work as the progress counts it: the start of a process, and updates."""
    return {"start": starts, UNIT.format(method=chain.method): done}
