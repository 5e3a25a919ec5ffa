"""Writing datasets to addresses "npz:PATH"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowpolicies.data.downloads.files import expanded

if TYPE_CHECKING:
    from flowpolicies.data.dataset.dataset import TransitionDataset


def open_npz(name: str, *, overwrite: bool = False, env: Any = None) -> Callable[[TransitionDataset], Path]:
    """A function that writes a dataset to an .npz file; the writer of the source "npz".

    Raises:
        ValueError: if the name does not end in .npz.
        FileExistsError: if the file exists and `overwrite` is off.
    """
    path = expanded(name)
    if path.suffix != ".npz":
        raise ValueError(f"'npz:{name}' must end in .npz.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"'{path}' exists. Pass overwrite=True (--overwrite) to replace it, or another path.")

    def write(dataset: TransitionDataset) -> Path:
        return dataset.save(path)

    return write
