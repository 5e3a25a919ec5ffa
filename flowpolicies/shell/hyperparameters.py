"""Stable-Baselines3's numbers, and what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final, get_type_hints

from flowpolicies.shell.fields import Natural, Positive, Rate, Rounds, WholeShare, check_fields, check_value

if TYPE_CHECKING:
    from flowpolicies.shell.algorithm import OfflineAlgorithm


@final
@dataclass(frozen=True, kw_only=True)
class Knobs:
    """Stable-Baselines3's knobs, which all algorithms share."""

    batch_size: int = 256
    """Transitions, or action chunks, per gradient step."""
    learning_rate: Positive = 3e-4
    """Of Adam."""
    gamma: WholeShare = 0.99
    """Discount per environment step."""
    tau: Rate = 0.005
    """Share of the trained weights that target networks take over per gradient step."""
    n_steps: int = 1
    """Length of n-step returns; only with a horizon of 1."""
    buffer_size: int = 1_000_000
    """Room for online transitions; the dataset is kept beside it."""
    learning_starts: Natural = 100
    """Environment steps before online training updates anything."""
    train_freq: int = 1
    """Environment steps between two rounds of updates, online."""
    gradient_steps: Rounds = 1
    """Updates per round, online; -1: as many as environment steps in between."""

    def __post_init__(self) -> None:
        check_fields(self)


def check_knobs(model: OfflineAlgorithm) -> None:
    """Raises a ValueError or a TypeError for numbers that would train nonsense, which Stable-Baselines3 would.

    A schedule of the learning rate, and a frequency with a unit, are left to it.
    """
    for name, hint in get_type_hints(Knobs, include_extras=True).items():
        given = getattr(model, name)
        if not (callable(given) or isinstance(given, tuple)):
            check_value(name, hint, given)
