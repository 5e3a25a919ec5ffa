"""The status of a run: its state, its steps, its numbers so far and what is wrong with it, read from its folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast, final

from flowpolicies.artifacts import ArtifactError, reading
from flowpolicies.locks import Holder
from flowpolicies.training.evaluations import EvaluationRow, Phase
from flowpolicies.training.logs import LogTable, read_table
from flowpolicies.training.runs import STEP_COLUMNS, RunFolder

RunState = Literal["not begun", "starting", "running", "finished", "stopped", "failed", "killed"]
"""not begun: the folder is empty. starting: a process loads the data. running: a process trains. finished: all steps
are done. stopped: by Ctrl-C or SIGTERM, after a last checkpoint. failed: the process ended otherwise before the run
did. killed: the process could not remove its lock, as after SIGKILL, lack of memory or a power cut."""

RECENT = 20
"""Number of rows of the log over which the speed is measured."""

LEAST_SECONDS = 5
"""Least number of seconds over which the speed is measured, as the log counts whole seconds."""

T = TypeVar("T")


class PhaseProgress(NamedTuple):
    """How far a phase is."""

    phase: Phase
    """Name of the phase."""
    done: int
    """Number of steps that are done."""
    asked: int
    """Number of steps of the whole phase."""
    pace: float | None
    """Recent steps per second, with the time of evaluations; None if it is not known."""


class Curve(NamedTuple):
    """A logged number over the steps."""

    values: Sequence[float]
    """Its values, the oldest first."""
    switch: int
    """Number of values of the offline phase, which come first."""


@final
@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """What is known of a run at one moment."""

    folder: RunFolder
    """Folder of the run."""
    state: RunState
    """What the run does."""
    reason: str
    """How that is known, for people; "" where the state says all."""
    record: Mapping[str, Any]
    """Content of `config.json`; empty if the run has not begun."""
    phases: Sequence[PhaseProgress] = ()
    """The phases that the run is asked for."""
    evaluations: Sequence[EvaluationRow] = ()
    """All evaluations so far, the oldest first."""
    curves: Mapping[str, Curve]
    """Name of each number of `progress.csv` -> its values."""
    logged: float | None = None
    """Seconds since the newest row of the log; None if there is none."""
    checkpoint: Path | None = None
    """The newest checkpoint, or the model of a run that has none."""
    warnings: Sequence[str] = ()
    """What is wrong with the run, or should be looked at."""

    @property
    def may_change(self) -> bool:
        """Whether a process writes to the folder, or may begin to."""
        return self.state in ("not begun", "starting", "running")

    @property
    def current(self) -> PhaseProgress | None:
        """The phase that the run is in, or ended in; None if it has not begun."""
        begun = [one for one in self.phases if one.done > 0]
        left = [one for one in self.phases if one.done < one.asked]
        return next(iter(left[:1] or begun[-1:]), None)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end of the current phase; None if that cannot be said."""
        current = self.current
        if self.state != "running" or current is None or not current.pace:
            return None
        return max(0.0, (current.asked - current.done) / current.pace - (self.logged or 0.0))

    @property
    def best(self) -> EvaluationRow | None:
        """The first of the best evaluations: by success if the environment reports it, otherwise by the return."""
        return max(self.evaluations, key=score, default=None)


def score(row: EvaluationRow) -> float:
    """Success rate of an evaluation, or its return if success is not reported."""
    return row.mean_return if math.isnan(row.success) else row.success


def read_status(path: Path) -> RunStatus:
    """Reads the status of a run. Damaged logs are reported among its warnings.

    Args:
        path: run folder. It may be empty, or hold the lock of a process only: then the run has not begun.

    Raises:
        FileNotFoundError: if there is no such folder, or it holds something else than a run.
        ArtifactError: if `config.json` is damaged.
    """
    folder = RunFolder(path)
    if not path.is_dir():
        problem = "it is a file" if path.exists() else "there is no such folder"
        raise FileNotFoundError(f"'{path}' is not the folder of a run: {problem}.")
    holder = folder.lock().holder()  # First, as a process that ends writes what it did before it removes its lock.
    if not folder.config.is_file():
        return _before_the_first_step(folder, holder)
    record, warnings = folder.read_config(), list[str]()
    with reading(folder.config):
        asked = _asked(record)
        state, reason = _state(folder, record, asked, holder)
    table = _or_warn(lambda: _read_table(folder.progress), LogTable((), [], False), warnings)
    log = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return RunStatus(
        folder=folder,
        state=state,
        reason=reason,
        record=record,
        phases=_or_warn(lambda: _phases(folder, asked, log), (), warnings),
        evaluations=_or_warn(folder.read_evaluations, [], warnings),
        curves=(curves := _curves(log)),
        logged=max(0.0, time.time() - folder.progress.stat().st_mtime) if log else None,
        checkpoint=folder.latest() or (folder.model if folder.model.is_file() else None),
        warnings=[*warnings, *_warnings(folder, state, log, curves)],
    )


def _before_the_first_step(folder: RunFolder, holder: Holder | None) -> RunStatus:
    try:
        folder.check_free()
    except FileExistsError as error:
        raise FileNotFoundError(
            f"'{folder.path}' is not the folder of a run: it has no {folder.config.name}."
        ) from error
    if holder is not None and holder.is_alive:
        return RunStatus(folder=folder, state="starting", reason=f"by {holder.who}", record={}, curves={})
    return RunStatus(folder=folder, state="not begun", reason="the folder is empty", record={}, curves={})


def _or_warn(read: Callable[[], T], otherwise: T, warnings: list[str]) -> T:
    """What a function reads, or another value and a warning if the file is damaged."""
    try:
        return read()
    except ArtifactError as error:
        warnings.append(str(error))
        return otherwise


def _read_table(path: Path) -> LogTable:
    if not path.is_file():
        return LogTable((), [], False)
    found = path.stat()
    return _read_unchanged(path, (found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=64)
def _read_unchanged(path: Path, version: tuple[int, int]) -> LogTable:
    return read_table(path)


def _state(
    folder: RunFolder, record: Mapping[str, Any], asked: Mapping[Phase, int], holder: Holder | None
) -> tuple[RunState, str]:
    """The state of a run that has a record, and how it is known."""
    if holder is not None and holder.is_alive:
        unseen = "" if holder.is_here else f", last sign of life {holder.silence:.0f} s ago"
        return "running", f"by {holder.who}{unseen}"
    part = _last_part(record)
    if part is None and folder.model.is_file():  # A run of version 0.1.0, which noted no end.
        return "finished", ""
    if part is not None and "to" in part:
        is_done = all(int(part["to"][phase]) >= steps for phase, steps in asked.items())
        return ("finished", "") if is_done else ("stopped", "by Ctrl-C or SIGTERM; --resume continues the run")
    if holder is not None:
        return "killed", f"its lock was left behind by {holder.who}; --resume continues the run"
    return "failed", "its process ended before the run did, and says why in its output; --resume continues the run"


def _last_part(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    parts = record.get("parts")
    return cast("Mapping[str, Any]", parts[-1]) if parts else None


def _asked(record: Mapping[str, Any]) -> dict[Phase, int]:
    """Phase -> number of steps that the newest part of the run is asked for."""
    part, settings = _last_part(record) or {}, record.get("settings", {})
    asked = part.get("asked") or {"offline": settings.get("steps", 0), "online": settings.get("online_steps", 0)}
    return {"offline": int(asked["offline"]), "online": int(asked["online"])}


def _phases(folder: RunFolder, asked: Mapping[Phase, int], log: Sequence[Mapping[str, str]]) -> list[PhaseProgress]:
    with reading(folder.progress):
        return [_progress(phase, steps, log) for phase, steps in asked.items() if steps > 0]


def _progress(phase: Phase, asked: int, log: Sequence[Mapping[str, str]]) -> PhaseProgress:
    rows = [row for row in log if row.get(STEP_COLUMNS[phase])]
    done = max((int(row[STEP_COLUMNS[phase]]) for row in rows), default=0)
    timed = [
        (int(row[STEP_COLUMNS[phase]]), float(row["time/time_elapsed"])) for row in rows if row.get("time/time_elapsed")
    ]
    for place in range(len(timed) - 1, 0, -1):
        if timed[place][1] < timed[place - 1][1]:  # The run was resumed here, where its clock begins again.
            timed = timed[place:]
            break
    recent = timed[-RECENT:]
    steps, seconds = (recent[-1][i] - recent[0][i] for i in (0, 1)) if recent else (0, 0.0)
    if seconds >= LEAST_SECONDS:
        return PhaseProgress(phase, done, asked, steps / seconds)
    stated = [row.get("time/steps_per_second") or row.get("time/fps") for row in rows]
    known = [float(pace) for pace in stated if pace]
    return PhaseProgress(phase, done, asked, known[-1] if known else None)


def _curves(log: Sequence[Mapping[str, str]]) -> dict[str, Curve]:
    """The numbers of the log. Columns that hold text or times are left out."""
    found: dict[str, Curve] = {}
    for name in log[-1] if log else ():
        rows = [row for row in log if row[name]]
        if rows and not name.startswith("time/"):
            try:
                values = [float(row[name]) for row in rows]
            except ValueError:
                continue
            found[name] = Curve(values, sum(not row.get(STEP_COLUMNS["online"]) for row in rows))
    return found


def _warnings(
    folder: RunFolder, state: RunState, log: Sequence[Mapping[str, str]], curves: Mapping[str, Curve]
) -> list[str]:
    """What the files say that people should look at."""
    found = []
    for name, curve in curves.items():
        if name.endswith("loss") and not math.isfinite(curve.values[-1]):
            step = _step_of(next(row for row in log if row[name] and not math.isfinite(float(row[name]))))
            found.append(f"{name} is {curve.values[-1]} since {step}; see docs/guides/troubleshooting.md")
    for name, curve in curves.items():
        diagnostic = name.removeprefix("diagnosis/").removesuffix("_judgement")
        if name == f"diagnosis/{diagnostic}_judgement" and (level := curve.values[-1]) >= 1:
            words = "is bad" if level > 1 else "is worth a look"
            value = curves.get(f"diagnosis/{diagnostic}")
            text = "" if value is None else f" ({value.values[-1]:.3g})"
            found.append(f"{diagnostic} {words}{text}; `flowpolicies diagnose {folder.path}` says what to do")
    damaged = sorted(folder.checkpoints.glob("*.damaged"))
    found += [f"the checkpoint {path.name.removesuffix('.damaged')} was damaged" for path in damaged]
    if state == "finished" and not folder.policy.is_file():
        found.append(f"there is no {folder.policy.name}: it could not be written at the end of the run")
    return found


def _step_of(row: Mapping[str, str]) -> str:
    """The step of a row of the log, in words."""
    for phase, column in STEP_COLUMNS.items():
        if row.get(column):
            return f"{phase} step {int(row[column]):,}"
    return "an unknown step"
