"""What the commands that read a dataset have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from flowpolicies.cli.command import Command
from flowpolicies.data import TransitionDataset, load_dataset


@dataclass(frozen=True, kw_only=True)
class OfDataset(Command):
    """Abstract: reads a dataset."""

    address: tyro.conf.Positional[str]
    """Source and name, such as npz:PATH; options of the source may follow, as in sb3:PATH,trust=true."""
    data_dir: Path | None = None
    """Folder of the data files to read; None: the source's own."""

    @property
    def options(self) -> dict[str, Any]:
        """Of the source, beside those in the address."""
        return {} if self.data_dir is None else {"data_dir": self.data_dir}

    def load(self) -> TransitionDataset:
        """The dataset."""
        return load_dataset(self.address, **self.options)
