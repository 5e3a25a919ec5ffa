"""Base class of the commands that read a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from flowpolicies import data
from flowpolicies.cli.command import Command


@dataclass(frozen=True, kw_only=True)
class OfDataset(Command):
    """Abstract base of the commands that read a dataset."""

    address: tyro.conf.Positional[str]
    """Address of the dataset, such as npz:PATH. Options of the source may follow, as in sb3:PATH,trust=true."""
    data_dir: Path | None = None
    """Folder of the dataset's files. None: the folder in which the source keeps its files."""

    @property
    def options(self) -> dict[str, Any]:
        """Options of the source that are not in the address."""
        return {} if self.data_dir is None else {"data_dir": self.data_dir}

    def load(self) -> data.TransitionDataset:
        """Loads the dataset. A source or a file that does not exist is reported before torch is imported."""
        data.check_address(self.address, **self.options)
        return data.load_dataset(self.address, **self.options)
