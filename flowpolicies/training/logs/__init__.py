"""The logs of a run on disk: tables that can be cut off at a checkpoint, and the events of TensorBoard."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flowpolicies.artifacts import ArtifactError, reading
from flowpolicies.files import atomic_write, csv_text

if TYPE_CHECKING:  # The logger is imported when a run begins: whether a folder is free is known without it.
    from stable_baselines3.common.logger import Logger

    from flowpolicies.core.learner import MetricMeans

FORMATS = ("stdout", "csv", "tensorboard")
"""Output formats of a run's logger, as values name those that they are excluded from."""


class LogTable(NamedTuple):
    """Content of a CSV file."""

    columns: tuple[str, ...]
    rows: list[list[str]]
    torn: bool
    """Whether a last row was left out that a killed process, or a power cut, left unfinished."""


def read_table(path: Path, check: Callable[[Sequence[str]], object] = tuple) -> LogTable:
    """Reads a CSV file whose last row may be unfinished; a file that does not exist is an empty table.

    Args:
        path: path of the file.
        check: raises a ValueError for a row that cannot be right.

    Raises:
        ArtifactError: if another row than the last one is damaged.
    """
    data = path.read_bytes() if path.is_file() else b""
    complete = data[: data.rfind(b"\n") + 1]
    with reading(path, hint="It is not a table that a run wrote. Move the file away: a run continues without it."):
        columns, *rows = list(csv.reader(StringIO(complete.decode(errors="replace")))) or [[]]
    torn = len(complete) < len(data)
    for number, row in enumerate(rows, start=1):
        problem = _problem_of(row, columns, check)
        if problem and number == len(rows):
            rows, torn = rows[:-1], True
        elif problem:
            raise ArtifactError(
                path,
                problem,
                place=f"row {number} below the header",
                hint="Mend or delete this row in an editor, or move the file away: a run continues without it.",
            )
    return LogTable(tuple(columns), rows, torn)


def _problem_of(row: Sequence[str], columns: Sequence[str], check: Callable[[Sequence[str]], object]) -> str:
    """What is wrong with a row; "" if nothing is."""
    if any("\0" in cell or "\ufffd" in cell for cell in row):
        return "the row contains bytes that are not text"
    if len(row) != len(columns):
        return f"the row has {len(row)} cells, the header has {len(columns)}"
    try:
        check(row)
    except ValueError as error:
        return str(error)
    return ""


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Replaces a CSV file, atomically."""
    with atomic_write(path) as file:
        file.write(csv_text([columns, *rows]).encode())


class LogState(NamedTuple):
    """Where the logs of a run are at a checkpoint, as plain data."""

    progress: int
    """Number of rows of `progress.csv`."""
    evaluations: int
    """Number of rows of `evaluations.csv`."""
    events: dict[str, int]
    """Event file of TensorBoard, relative to their folder -> its size in bytes."""
    means: dict[str, tuple[float, int, str]]
    """State of `MetricMeans` for the interval in progress."""
    pending: dict[str, tuple[Any, Sequence[str]]]
    """Key -> value that is recorded and not written yet, and the formats that it is excluded from."""


class LogFiles(NamedTuple):
    """Paths of the logs of a run."""

    progress: Path
    """CSV file of the logger."""
    evaluations: Path
    """CSV file with a row for each evaluation."""
    events: Path
    """Folder of TensorBoard's event files, with a folder for each phase."""


def state_of_logs(files: LogFiles, means: MetricMeans, logger: Logger | None) -> LogState:
    """Brings the logs to the disk, and describes where they are."""
    for writer in [] if logger is None else logger.output_formats:
        if callable(flush := getattr(writer, "flush", None)):  # That of `EventWriter`.
            flush()
    for path in (files.progress, files.evaluations):
        _flush(path)
    return LogState(
        len(read_table(files.progress).rows),
        len(read_table(files.evaluations).rows),
        {file.relative_to(files.events).as_posix(): file.stat().st_size for file in _files(files.events)},
        means.state(),
        {} if logger is None else _pending(logger),
    )


def rewind_logs(files: LogFiles, state: LogState) -> None:
    """Cuts off what was logged after a checkpoint, because the continued run logs it again."""
    for path, number in ((files.progress, state.progress), (files.evaluations, state.evaluations)):
        table = read_table(path)
        if len(table.rows) > number:
            write_table(path, table.columns, table.rows[:number])
    for file in _files(files.events):
        size = state.events.get(file.relative_to(files.events).as_posix())
        if size is None:
            file.unlink()
        elif size < file.stat().st_size:
            os.truncate(file, size)


def mend_table(path: Path, check: Callable[[Sequence[str]], object] = tuple) -> bool:
    """Cuts off an unfinished last row; whether there was one.

    Raises:
        ArtifactError: if another row is damaged.
    """
    table = read_table(path, check)
    if table.torn:
        write_table(path, table.columns, table.rows) if table.columns else path.unlink()
    return table.torn


def restore_recorded(logger: Logger, means: MetricMeans, device: Any, state: LogState) -> None:
    """Gives the logger the values that were recorded and not written at the checkpoint."""
    means.restore(state.means, device)
    for key, (value, excluded) in state.pending.items():
        logger.record(key, value, tuple(excluded))


def _pending(logger: Logger) -> dict[str, tuple[Any, Sequence[str]]]:
    import numpy as np

    values = {
        key: value.item() if isinstance(value, np.generic) else value for key, value in logger.name_to_value.items()
    }
    excluded = logger.name_to_excluded
    return {
        key: (value, excluded[key])
        for key, value in values.items()
        if isinstance(value, bool | int | float | str) and not set(FORMATS) <= set(excluded[key])
    }


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _flush(path: Path) -> None:
    if path.is_file():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
