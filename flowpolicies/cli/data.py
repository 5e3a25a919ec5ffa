"""`flowpolicies data`: making datasets, looking at them, and writing them in other formats."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, final

import tyro

from flowpolicies.cli.command import Command
from flowpolicies.cli.dataset import OfDataset
from flowpolicies.data import generate_dataset, open_writer
from flowpolicies.training import collect, load_policy


@final
@dataclass(frozen=True, kw_only=True)
class Generate(Command):
    """Let a source make its dataset on this machine, with its own environments and scripted policies."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies data generate cube-single-play-v0 --workers 4",
        "flowpolicies data generate ogbench:pointmaze-medium-navigate-v0 --episodes 100 --out data",
    )

    address: tyro.conf.Positional[str]
    """Source and name; `flowpolicies list generators` shows the sources. A name alone is OGBench's."""
    episodes: int | None = None
    """Number of training episodes; None: as published."""
    max_episode_steps: int | None = None
    """Length of an episode; None: as published."""
    workers: int = 1
    """Processes."""
    data_dir: Annotated[Path | None, tyro.conf.arg(aliases=["--out"])] = None
    """Folder to write to; None: the source's own, where loading looks too. Pass any other to `train` as well."""
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
        options |= {"workers": self.workers, "seed": self.seed, "overwrite": self.overwrite}
        try:
            path = generate_dataset(self.address, **options)
        except KeyboardInterrupt:
            print("Interrupted. The same command goes on with what is there.", file=sys.stderr)
            raise
        address = self.address if ":" in self.address else f"ogbench:{self.address}"
        where = "" if self.data_dir is None else f" --data-dir {self.data_dir}"
        print(f"Wrote '{path}'. Look at it with: flowpolicies data check {address}{where}")
        print(f"Train on it with --dataset {address}{where}")


@final
@dataclass(frozen=True, kw_only=True)
class Show(OfDataset):
    """Print what to look at before training on a dataset."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies data show ogbench:cube-single-play-singletask-v0",
        "flowpolicies data show npz:data.npz",
    )

    def run(self, words: Sequence[str]) -> None:
        """Prints the summary."""
        print(self.load().summary())


@final
@dataclass(frozen=True, kw_only=True)
class Collect(Command):
    """Let a policy act, and write what happened as a dataset."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies data collect --policy policy.safetensors --env Pendulum-v1 --episodes 20 --out minari:mine-v0",
        "flowpolicies data collect --policy runs/fql --env ogbench:cube-single-play-singletask-v0 --out npz:cube.npz",
    )

    policy: Path
    """A policy.safetensors, the folder of a run, or a zip of model.save() (which runs code: only one you trust)."""
    env: str
    """Environment: an address or a Gymnasium id."""
    out: str
    """Where to write: minari:NAME-v0 or npz:PATH; nothing is there before the last episode has ended."""
    episodes: int = 10
    """How many."""
    seed: int = 0
    """Of the episodes."""
    deterministic: bool = False
    """Start flows at zero noise, instead of sampling."""
    overwrite: bool = False
    """Replace what is there."""
    device: str = "auto"
    """A torch device; auto: CUDA if there is one."""

    def run(self, words: Sequence[str]) -> None:
        """Collects, and prints what came of it."""
        dataset, found = collect(
            load_policy(self.policy, self.device),
            self.env,
            self.episodes,
            out=self.out,
            seed=self.seed,
            deterministic=self.deterministic,
            overwrite=self.overwrite,
            progress=True,
            provenance={"policy": str(self.policy)},
        )
        print(found)
        print(dataset.summary())
        print(f"Wrote {self.out}. Train on it with --dataset {self.out}")


@final
@dataclass(frozen=True, kw_only=True)
class Convert(OfDataset):
    """Write a dataset in another format."""

    examples: ClassVar[tuple[str, ...]] = ("flowpolicies data convert npz:data.npz minari:mine-v0",)

    out: tyro.conf.Positional[str]
    """Where to write: minari:NAME-v0 or npz:PATH."""
    overwrite: bool = False
    """Replace what is there."""

    def run(self, words: Sequence[str]) -> None:
        """Reads, writes, and prints where."""
        write = open_writer(self.out, overwrite=self.overwrite)  # Before a reading that may take minutes.
        print(f"Wrote '{write(self.load())}'.")
