"""`flowpolicies rollout`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import tyro

from flowpolicies.cli.command import Command
from flowpolicies.data import make_env
from flowpolicies.training import load_policy, rollout


@final
@dataclass(frozen=True, kw_only=True)
class Rollout(Command):
    """Roll a policy out, and save what it did as a dataset to train on."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies rollout policy.safetensors --env Pendulum-v1 --episodes 20 --output pendulum.npz",
        "flowpolicies data show npz:pendulum.npz",
    )

    path: tyro.conf.Positional[Path]
    """A policy.safetensors, the folder of a run, or a zip of model.save() (which runs code: only one you trust)."""
    env: str
    """Environment: an address or a Gymnasium id."""
    output: Path
    """The .npz file to write; it is then the dataset npz:PATH."""
    episodes: int = 10
    """How many."""
    seed: int = 0
    """Of the episodes."""
    deterministic: bool = False
    """Start flows at zero noise, instead of sampling."""
    overwrite: bool = False
    """Replace the file if it is there."""
    device: str = "auto"
    """A torch device; auto: CUDA if there is one."""

    def run(self, words: Sequence[str]) -> None:
        """Rolls out, saves, and prints both summaries."""
        if self.output.suffix != ".npz":
            raise ValueError(f"--output must end in .npz, got '{self.output}'")
        if self.output.exists() and not self.overwrite:
            raise FileExistsError(f"'{self.output}' exists. Pass --overwrite, or another --output.")
        policy = load_policy(self.path, self.device)
        provenance = {
            "source": "rollout",
            "policy": str(self.path),
            "env": self.env,
            "seed": self.seed,
            "deterministic": self.deterministic,
        }
        with closing(make_env(self.env)) as env:
            dataset, found = rollout(
                policy,
                env,
                self.episodes,
                seed=self.seed,
                deterministic=self.deterministic,
                name=self.output.stem,
                provenance=provenance,
            )
        dataset.save(self.output)
        print(found)
        print(dataset.summary())
