"""`flowpolicies data`: making datasets and looking at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import tyro

from flowpolicies.cli.command import Command
from flowpolicies.data import generate_dataset, load_dataset


@final
@dataclass(frozen=True, kw_only=True)
class Generate(Command):
    """Let a source make its dataset on this machine, with its own environments and scripted policies."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies data generate ogbench:cube-single-play-singletask-v0 --workers 4",
        "flowpolicies data generate ogbench:pointmaze-medium-navigate-singletask-v0 --episodes 100 --data-dir data",
    )

    address: tyro.conf.Positional[str]
    """Source and name; `flowpolicies list generators` shows the sources."""
    episodes: int | None = None
    """Number of training episodes; None: as published."""
    max_episode_steps: int | None = None
    """Length of an episode; None: as published."""
    workers: int = 1
    """Processes."""
    data_dir: Path | None = None
    """Folder to write to; None: the source's own. Pass it to `train` as well."""
    seed: int = 0
    """Of everything."""
    overwrite: bool = False
    """Replace files that are there."""

    def run(self, words: Sequence[str]) -> None:
        """Generates, and prints where."""
        wishes = {
            "num_episodes": self.episodes,
            "max_episode_steps": self.max_episode_steps,
            "data_dir": self.data_dir,
        }
        options: dict[str, Any] = {key: wish for key, wish in wishes.items() if wish is not None}
        path = generate_dataset(self.address, workers=self.workers, seed=self.seed, overwrite=self.overwrite, **options)
        print(f"Wrote '{path}'. Train on it with --dataset {self.address} --data-dir {path.parent}")


@final
@dataclass(frozen=True, kw_only=True)
class Show(Command):
    """Print what to look at before training on a dataset."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies data show ogbench:cube-single-play-singletask-v0",
        "flowpolicies data show npz:data.npz",
    )

    address: tyro.conf.Positional[str]
    """Source and name, such as npz:PATH."""
    data_dir: Path | None = None
    """Folder of the data files; None: the source's own."""

    def run(self, words: Sequence[str]) -> None:
        """Prints the summary."""
        options = {} if self.data_dir is None else {"data_dir": self.data_dir}
        print(load_dataset(self.address, **options).summary())
