"""Stable-Baselines3's hyperparameters, which every algorithm has, and their ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, final

from flowpolicies.moved import moved_names
from flowpolicies.shell.fields import (
    GradientSteps,
    NonNegativeFloat,
    NonNegativeInt,
    Probability,
    check_fields,
    check_value,
    hints_of,
)


@final
@dataclass(frozen=True, kw_only=True)
class SB3Hyperparameters:
    """Stable-Baselines3's hyperparameters, which every algorithm has.

    Examples:
        >>> from dataclasses import asdict
        >>> from flowpolicies import FQL
        >>> from flowpolicies.training import SB3Hyperparameters
        >>> model = FQL(dataset="pendulum:mixed", **asdict(SB3Hyperparameters(batch_size=128, gamma=0.995)))
    """

    added: ClassVar[Mapping[str, Any]] = {}
    """Fields that runs of version 0.1.0 lack, and the values that act as that version did."""

    batch_size: int = 256
    """Number of transitions, or of action chunks, per update."""
    learning_rate: NonNegativeFloat = 3e-4
    """Learning rate of Adam, for all networks without a learning rate of their own."""
    gamma: Probability = 0.99
    """Discount factor per environment step."""
    tau: Probability = 0.005
    """Polyak rate: how far target networks move towards the trained weights per update."""
    n_steps: int = 1
    """Number of steps of n-step returns; only without action chunks (a horizon of 1)."""
    buffer_size: int = 1_000_000
    """Largest number of online transitions in the replay buffer; those of the dataset do not count."""
    learning_starts: NonNegativeInt = 100
    """Number of environment steps before the first online update."""
    train_freq: int = 1
    """Number of environment steps between two rounds of online updates."""
    gradient_steps: GradientSteps = 1
    """Number of updates per round, online; -1: as many as there were environment steps since the last round."""

    def __post_init__(self) -> None:
        check_fields(self)


def check_hyperparameters(value_of: Callable[[str], Any]) -> None:
    """Checks Stable-Baselines3's hyperparameters, whose ranges it does not check itself.

    A schedule of the learning rate and a frequency with a unit are left to Stable-Baselines3.

    Args:
        value_of: value of the hyperparameter of a name.

    Raises:
        ValueError: for a number out of its range, and, as in Stable-Baselines3, for a frequency of another type.
        TypeError: for another value of another type.
    """
    frequency = value_of("train_freq")
    if not isinstance(frequency, int | tuple):
        raise ValueError(
            f'train_freq must be a number of steps, or a tuple like (4, "step") or (1, "episode"), got {frequency!r}'
        )
    hints = hints_of(SB3Hyperparameters)
    for field in fields(SB3Hyperparameters):
        given = value_of(field.name)
        if not (callable(given) or isinstance(given, tuple)):
            check_value(field.name, hints[field.name], given)


__getattr__ = moved_names(
    __name__,
    {
        "Knobs": "flowpolicies.shell.hyperparameters:SB3Hyperparameters",
    },
)
