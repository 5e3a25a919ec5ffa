"""`flowpolicies toy`: what algorithms do to points in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import tyro

from flowpolicies.cli.command import Command
from flowpolicies.toy.settings import ToySettings


@final
@dataclass(frozen=True, kw_only=True)
class Toy(Command):
    """Show in 2D what algorithms do to data with rewards, with a weight of the data from small to large.

    In the reduced size each dataset and method takes minutes on one core. Trainings that are done are not repeated.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies toy --dataset swissroll --methods qflow fql fbrac --coefficients 0.3 0.5 1 5",
        "flowpolicies toy --dataset all --workers 12 --run-dir runs/toy-all",
        "flowpolicies toy --dataset moons --full --device cuda --run-dir runs/toy-full",
    )

    settings: tyro.conf.OmitArgPrefixes[ToySettings]

    def run(self, words: Sequence[str]) -> None:
        """Trains what is missing, draws the figures and prints the table."""
        from flowpolicies.toy.running import run_toy

        run_toy(self.settings)
