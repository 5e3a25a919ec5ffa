"""The logger of a run, and its output formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from stable_baselines3.common.logger import (
    Figure,
    FormatUnsupportedError,
    HParam,
    Image,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    Video,
    filter_excluded_keys,
    make_output_format,
)

from flowpolicies.files import append_text, csv_text, naming_lack_of_space
from flowpolicies.training.logs import mend_table, read_table, write_table


def make_logger(
    folder: Path,
    progress: Path,
    events: Path | None,
    *,
    print_tables: bool = False,
    more: Sequence[KVWriter] = (),
) -> Logger:
    """Logger that appends to a CSV file, and writes to a folder for TensorBoard.

    Args:
        folder: folder of the run.
        progress: the CSV file.
        events: folder of the event files; None: none are written.
        print_tables: also print the rows.
        more: further output formats.
    """
    formats: list[KVWriter] = [ProgressWriter(progress), *([] if events is None else [EventWriter(events)]), *more]
    if print_tables:
        formats.append(make_output_format("stdout", str(folder)))
    return Logger(str(folder), formats)


@final
class ProgressWriter(KVWriter):
    """Output format of the logger that appends to a CSV file. New columns replace the file atomically.

    Stable-Baselines3's own writer empties the file, writes new columns in place, and orders them differently in each
    process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        mend_table(path)
        self.columns = read_table(path).columns
        path.touch()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        values = filter_excluded_keys(key_values, key_excluded, "csv")
        for value in values.values():
            if isinstance(value, Video | Figure | Image | HParam):
                raise FormatUnsupportedError(["csv"], type(value).__name__.lower())
        if new := sorted(values.keys() - set(self.columns)):
            rows = read_table(self.path).rows
            self.columns = (*self.columns, *new)
            write_table(self.path, self.columns, [[*row, *[""] * len(new)] for row in rows])
        texts = ["" if values.get(column) is None else str(values[column]) for column in self.columns]
        append_text(self.path, csv_text([texts]))

    def close(self) -> None:
        """Nothing is open between two rows."""


@final
class EventWriter(KVWriter):
    """Output format of the logger for TensorBoard; an error for lack of space names the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with naming_lack_of_space(folder):
            self._inner = TensorBoardOutputFormat(str(folder))

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        with naming_lack_of_space(self._folder):
            self._inner.write(key_values, key_excluded, step)

    def flush(self) -> None:
        """Writes what is buffered to the file."""
        with naming_lack_of_space(self._folder):
            self._inner.writer.flush()

    def close(self) -> None:
        with naming_lack_of_space(self._folder):
            self._inner.close()
