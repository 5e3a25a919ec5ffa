"""Datasets out to addresses, such as "npz:PATH" or "minari:NAME".

What stands before the colon is a writer: "npz", or an entry point of an installed package in the group
`flowpolicies.writers`: `open_writer(name, overwrite=..., env=..., **options)` checks that the place is free and gives
`write(dataset) -> Path`, which writes whole or not at all. `env` is what the data come from, for formats that keep it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from flowpolicies.data.dataset.dataset import TransitionDataset

Writer = Callable[[TransitionDataset], Path]
"""Writes a dataset and returns where."""


def save_dataset(dataset: TransitionDataset, address: str, *, overwrite: bool = False, **options: Any) -> Path:
    """Write a dataset to "writer:name", whole or not at all, and return the path of what was written.

    Args:
        dataset: any.
        address: such as "npz:data.npz" or "minari:pendulum/mine-v0".
        overwrite: replace what is there.
        **options: of the writer, such as `env`, `author` and `data_dir` for Minari.

    Raises:
        ValueError: if there is no such writer, or it cannot hold this dataset.
        FileExistsError: if something is there and `overwrite` is off.
        ImportError: if the writer needs a package that is not installed.
    """
    return open_writer(address, overwrite=overwrite, **options)(dataset)


def open_writer(address: str, *, overwrite: bool = False, **options: Any) -> Writer:
    """The second half of `save_dataset`, after all checks that need no data.

    Raises:
        ValueError: if there is no such writer, or the name has another form.
        FileExistsError: if something is there and `overwrite` is off.
        ImportError: if the writer needs a package that is not installed.
    """
    kind, colon, name = address.partition(":")
    if not (kind and colon and name):
        raise ValueError(
            f"'{address}' has not the form 'writer:name'. Write 'npz:path/to/file.npz' or 'minari:NAME-v0'."
        )
    writer: Writer = _find(kind)(name, overwrite=overwrite, **options)
    return writer


def _open_npz(name: str, *, overwrite: bool = False, env: Any = None) -> Writer:
    path = Path(name).expanduser()
    if path.suffix != ".npz":
        raise ValueError(f"'npz:{name}' must end in .npz.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"'{path}' exists. Pass overwrite=True (--overwrite) to replace it, or another path.")

    def write(dataset: TransitionDataset) -> Path:
        return dataset.save(path)

    return write


_BUILT_IN: dict[str, Callable[..., Writer]] = {"npz": _open_npz}


def _find(kind: str) -> Callable[..., Writer]:
    if kind in _BUILT_IN:
        return _BUILT_IN[kind]
    points = {point.name: point for point in entry_points(group="flowpolicies.writers")}
    if kind not in points:
        known = sorted({*_BUILT_IN, *points})
        close = difflib.get_close_matches(kind, known, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"unknown dataset writer '{kind}' (known: {', '.join(known)}).{hint}")
    try:
        opener: Callable[..., Writer] = points[kind].load()
    except ImportError as error:
        raise ImportError(
            f"dataset writer '{kind}' cannot be imported ({error}). "
            f'Install what it needs: pip install "flowpolicies[{kind}]"'
        ) from error
    return opener
