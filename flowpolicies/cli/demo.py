"""`flowpolicies demo`: train and compare two algorithms in a few minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import tyro

from flowpolicies.cli.command import Command
from flowpolicies.reproduction.demo.settings import DemoSettings


@final
@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Generate OGBench data, train Q-Flow and BC, evaluate, and fine-tune online; takes minutes on two cores."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies demo",
        "flowpolicies demo --tasks 1 --run-dir runs/one-task",
    )

    settings: tyro.conf.OmitArgPrefixes[DemoSettings]

    def run(self, words: Sequence[str]) -> None:
        """Runs what is not done yet, and prints the table."""
        from flowpolicies.reproduction.demo.run import run_demo

        run_demo(self.settings)
