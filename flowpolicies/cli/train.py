"""`flowpolicies train ALGORITHM`: a command per algorithm, with the fields of its `Config` as flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from typing import Any, ClassVar

import tyro

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.cli.command import Command
from flowpolicies.training import Knobs, TrainSettings, train

EXAMPLES = (
    "flowpolicies train {name} --dataset ogbench:cube-single-play-singletask-v0",
    "flowpolicies train {name} --dataset npz:data.npz --env Pendulum-v1 --steps 20000 --actor-hidden-dims 128 128",
)


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Abstract: what the commands of all algorithms have."""

    algorithm: ClassVar[type[OfflineAlgorithm]]
    hyperparameters: ClassVar[Any]

    settings: tyro.conf.OmitArgPrefixes[TrainSettings]
    knobs: tyro.conf.OmitArgPrefixes[Knobs]

    def run(self, words: Sequence[str]) -> None:
        """Trains."""
        command = ("flowpolicies", *words)
        folder = train(self.algorithm, self.hyperparameters, self.settings, self.knobs, command=command)
        rows = folder.read_evaluations()
        print(f"Done. The run is in '{folder.path}': {', '.join(sorted(path.name for path in folder.path.iterdir()))}.")
        if rows:
            print(f"Evaluate it with: flowpolicies evaluate {folder.path}")


def train_command(algorithm: type[OfflineAlgorithm]) -> type[Command]:
    """The command of an algorithm."""
    namespace = {
        "algorithm": algorithm,
        "examples": tuple(example.format(name=algorithm.name) for example in EXAMPLES),
        "__doc__": algorithm.__doc__,
    }
    flat: Any = tyro.conf.OmitArgPrefixes  # Type checkers do not know types that are made at run time.
    fields = [("hyperparameters", flat[algorithm.Config])]
    return make_dataclass(
        f"Train{algorithm.__name__}", fields, bases=(Train,), namespace=namespace, frozen=True, kw_only=True
    )
