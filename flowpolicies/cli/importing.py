"""`flowpolicies import`: policies from files of other packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, final

import tyro

from flowpolicies import importing
from flowpolicies.cli.command import Command
from flowpolicies.importing.ports import port_of


@final
@dataclass(frozen=True, kw_only=True)
class Import(Command):
    """Make a policy file from a checkpoint of the authors' JAX code, without JAX, and without executing anything in it.

    Sizes of networks are read from the weights, and hyperparameters from flags.json beside the checkpoint.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies import flax exp/fql/params_1000000.pkl --algorithm fql",
        "flowpolicies import flax params_1000000.pkl --algorithm qam --flow-steps 10 --horizon-length 5 --out qam.st",
    )

    format: tyro.conf.Positional[Literal["flax"]]
    """Kind of the checkpoint. flax: a pickle of flax parameters, as the JAX code of FQL, QAM, RQL and Q-Flow writes."""
    path: tyro.conf.Positional[Path]
    """Checkpoint that the authors' save_agent() wrote, such as params_1000000.pkl."""
    algorithm: str
    """Algorithm of the checkpoint: fql, qam, qam_e, qam_f, qflow or rql."""
    out: Path = Path("policy.safetensors")
    """Policy file to write."""
    flags: Path | None = None
    """JSON file of the hyperparameters, as the authors' training writes it. None: flags.json beside the checkpoint."""
    env: str | None = None
    """Environment that the policy is for, whose spaces it gets: an address or a Gymnasium id.
    None: observations without bounds, and actions in [-1, 1]."""
    flow_steps: int | None = None
    """Number of Euler steps of the flow. None: as in flags.json."""
    horizon_length: int | None = None
    """Length of the action chunks in environment steps, 1 without chunks. None: as in flags.json."""
    best_of_n: int | None = None
    """Number of candidates per action, of which the critics choose the best. None: as in flags.json, or 1."""
    edit_scale: float | None = None
    """Size of the largest edit, for QAM-E. None: as in flags.json."""
    overwrite: bool = False
    """Replace an existing file."""

    def run(self, words: Sequence[str]) -> None:
        """Reads the checkpoint, writes the policy, and prints what it is."""
        if self.out.exists() and not self.overwrite:
            raise ValueError(f"'{self.out}' exists. Pass another --out, or --overwrite.")
        port_of(self.algorithm)  # Wrong names and paths are reported before torch is imported.
        self.path.open("rb").close()
        names = ("flow_steps", "horizon_length", "best_of_n", "edit_scale")
        options = {name: value for name in names if (value := getattr(self, name)) is not None}
        policy, _, config = importing.import_flax(self.path, self.algorithm, flags=self.flags, env=self.env, **options)
        policy.save(self.out)
        print(f"{type(config).__name__.removesuffix('Config')}: observations {policy.observation_space}")
        print(f"actions {policy.action_space}, planned {policy.horizon} at a time by {policy.sampler}")
        print(f"Wrote '{self.out}'. Evaluate it with: flowpolicies evaluate {self.out} --env {self.env or 'ENV'}")
