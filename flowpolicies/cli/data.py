"""`flowpolicies data`: generate, collect, show and convert datasets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, final

import tyro

from flowpolicies import data, training
from flowpolicies.cli.command import Command
from flowpolicies.cli.dataset import OfDataset
from flowpolicies.cli.evaluation.video import choose_renderer
from flowpolicies.comparison.endings import check_video


@final
@dataclass(frozen=True, kw_only=True)
class Generate(Command):
    """Generate a dataset on this machine, with the environments and scripted policies of its source."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies data generate cube-single-play-v0 --workers 4",
        "flowpolicies data generate ogbench:pointmaze-medium-navigate-v0 --episodes 100 --out data",
    )

    address: tyro.conf.Positional[str]
    """Address of the dataset; `flowpolicies list generators` shows the sources. OGBench's may be left out."""
    episodes: int | None = None
    """Number of training episodes. None: as many as the published dataset has."""
    max_episode_steps: int | None = None
    """Length of an episode in environment steps. None: that of the published dataset."""
    workers: int = 1
    """Number of processes that generate episodes at the same time."""
    data_dir: Annotated[Path | None, tyro.conf.arg(aliases=["--out"])] = None
    """Folder to write to. Pass the same --data-dir to `flowpolicies train`.
    None: the folder in which the source looks for its datasets."""
    seed: int = 0
    """Seed of the environments and of the scripted policies."""
    overwrite: bool = False
    """Replace existing files of the dataset."""

    def run(self, words: Sequence[str]) -> None:
        """Generates the dataset, and prints where it is."""
        wishes = {
            "num_episodes": self.episodes,
            "max_episode_steps": self.max_episode_steps,
            "data_dir": self.data_dir,
        }
        options: dict[str, Any] = {key: wish for key, wish in wishes.items() if wish is not None}
        options |= {"workers": self.workers, "seed": self.seed, "overwrite": self.overwrite}
        try:
            path = data.generate_dataset(self.address, **options)
        except KeyboardInterrupt:
            print("Interrupted. The same command continues with the episodes that are done.", file=sys.stderr)
            raise
        address = self.address if ":" in self.address else f"ogbench:{self.address}"
        where = "" if self.data_dir is None else f" --data-dir {self.data_dir}"
        print(f"Wrote '{path}'. Check it with: flowpolicies data check {address}{where}")
        print(f"Train on it with --dataset {address}{where}")


@final
@dataclass(frozen=True, kw_only=True)
class Show(OfDataset):
    """Print a summary of a dataset: size, episodes, rewards and spaces."""

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
    """Run a policy in an environment, and write its episodes as a dataset."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies data collect --policy policy.safetensors --env Pendulum-v1 --episodes 20 --out minari:mine-v0",
        "flowpolicies data collect --policy runs/fql --env ogbench:cube-single-play-singletask-v0 --out npz:cube.npz",
    )

    policy: Path
    """Policy file (policy.safetensors), folder of a run or of `flowpolicies export`, zip file of model.save(),
    flowpolicies/NAME (a policy of the package), or hf://user/name (a repository of the Hugging Face Hub)."""
    env: str
    """Environment to run in: an address or a Gymnasium id."""
    out: str
    """Address to write to: minari:NAME-v0 or npz:PATH. Nothing is written before the last episode has ended."""
    episodes: int = 10
    """Number of episodes to collect."""
    seed: int = 0
    """Seed of the episodes and of the policy's noise."""
    deterministic: bool = False
    """Start flows at zero noise instead of sampling the noise."""
    overwrite: bool = False
    """Replace an existing dataset at this address."""
    video: Path | None = None
    """Video to write, .mp4 or .gif, of the first episode. It needs `pip install 'flowpolicies[video]'`.
    None: no video."""
    device: str = "auto"
    """Torch device, such as cpu or cuda:1. auto: CUDA if it is available."""
    trust: bool = False
    """Run the code in a zip file of model.save() that holds functions or classes saved as code, such as a lambda as a
    schedule of the learning rate. Only for files whose author you trust. Policy files never hold code."""

    def run(self, words: Sequence[str]) -> None:
        """Collects the episodes, and prints their returns and a summary of the dataset."""
        if self.video is not None:
            choose_renderer()
            check_video(self.video)
        policy = training.load_policy(self.policy, self.device, trust=self.trust)
        dataset, found = training.collect(
            policy,
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
        if self.video is not None:
            from flowpolicies.comparison.video import record_video

            record_video(policy, self.env, self.video, seed=self.seed, deterministic=self.deterministic)
            print(f"Wrote '{self.video}'.")


@final
@dataclass(frozen=True, kw_only=True)
class Convert(OfDataset):
    """Write a dataset in another format."""

    examples: ClassVar[tuple[str, ...]] = ("flowpolicies data convert npz:data.npz minari:mine-v0",)

    out: tyro.conf.Positional[str]
    """Address to write to: minari:NAME-v0 or npz:PATH."""
    overwrite: bool = False
    """Replace an existing dataset at this address."""

    def run(self, words: Sequence[str]) -> None:
        """Reads and writes the dataset, and prints where it is."""
        write = data.open_writer(
            self.out, overwrite=self.overwrite
        )  # A wrong address is reported before the dataset is read, which may take minutes.
        print(f"Wrote '{write(self.load())}'.")
