"""How many bytes of arrays a file may hold in memory, so that a small file cannot fill the memory of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import final

from flowpolicies.artifacts import ArtifactError

FLOOR = 1 << 28
"""Bytes that the arrays of any file may take in memory: 256 MiB."""

FACTOR = 100
"""Bytes of arrays for each byte of the file that may be exceeded only with `max_bytes`. Measured data compress to a
third or a half, and columns of zeros to a thousandth, but the latter are a small part of a dataset."""

MAX_TEXT = 1 << 24
"""Greatest number of bytes of a JSON text: 16 MiB."""


@final
class Budget:
    """The bytes of arrays that may still be read from a file.

    Args:
        path: the file or folder, for messages.
        size: its size in bytes; None: that of the file.
        max_bytes: bytes of all arrays together; None: the larger of `FLOOR` and `FACTOR` times the size.

    Raises:
        ValueError: if `max_bytes` is not a whole number of at least 1.
    """

    def __init__(self, path: Path, max_bytes: int | None = None, size: int | None = None) -> None:
        check_max_bytes(max_bytes)
        self.path, self.size = path, path.stat().st_size if size is None else size
        self.is_default = max_bytes is None
        self.allowed = max(FLOOR, FACTOR * self.size) if max_bytes is None else max_bytes
        self.spent = 0

    def spend(self, count: int, place: str) -> None:
        """Counts an array that is about to be read.

        Args:
            count: bytes of the array as it is declared.
            place: the name of the array, for messages.

        Raises:
            ArtifactError: if the arrays take more bytes than allowed.
        """
        self.spent += count
        if self.spent <= self.allowed:
            return
        why = f" (the larger of {_text(FLOOR)} and {FACTOR} times its size)" if self.is_default else " (max_bytes)"
        raise ArtifactError(
            self.path,
            f"up to here its arrays take {_text(self.spent)} in memory, though it has {_text(self.size)}; at most "
            f"{_text(self.allowed)} are read{why}",
            place=place,
            hint=f"If the file is in order, pass a greater max_bytes, in bytes, such as max_bytes={2 * self.spent}.",
        )


def check_max_bytes(max_bytes: object) -> None:
    """Checks the option `max_bytes`.

    Raises:
        ValueError: if it is neither None nor a whole number of at least 1.
    """
    if max_bytes is not None and (isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1):
        raise ValueError(f"max_bytes is {max_bytes!r}, and must be a whole number of bytes, at least 1.")


def _text(count: int) -> str:
    if count < 10**6:
        return f"{count:,} bytes"
    return f"{count / 1e6:,.0f} MB" if count < 10**10 else f"{count / 1e9:,.0f} GB"
