"""Files that are there whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """An open file that takes the place of `path` when the block ends without an error.

    Until then readers see the old file. The temporary one lies in the same folder, begins with a dot, and goes
    whatever happens, a kill excepted. The folder is made if it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Writes `data` as indented JSON, atomically; paths and other objects become their text."""
    with atomic_write(path) as file:
        file.write((json.dumps(data, indent=2, default=str) + "\n").encode())


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV, one line each."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
