"""Readings, the results of diagnostics, as text and as JSON data."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, final

Judgement = Literal["ok", "look", "bad", "not applicable"]
"""What a reading says: nothing to do; worth a look; training will probably fail because of it; or nothing, because the
model lacks what is measured."""

VERSION = 1
"""Version of the JSON data of a diagnosis."""


class Reading(NamedTuple):
    """The result of one diagnostic."""

    name: str
    """Name of the diagnostic."""
    judgement: Judgement
    """Comparison of the value with the thresholds."""
    sentence: str
    """What was measured, or why it could not be measured."""
    value: float | None = None
    """The measured number; None if the diagnostic does not apply."""
    look: float | None = None
    """Threshold above which the judgement is "look"."""
    bad: float | None = None
    """Threshold above which the judgement is "bad"."""
    remedy: str = ""
    """What to do, if the judgement is "look" or "bad"."""
    details: Mapping[str, float] = {}
    """Numbers that the value was computed from, by name."""

    def to_json(self) -> dict[str, Any]:
        """The reading as JSON data. Numbers that JSON does not have, such as NaN, are None."""
        data = self._asdict() | {"details": {key: finite(number) for key, number in self.details.items()}}
        return data | {"value": finite(self.value)}


@final
@dataclass(frozen=True)
class Diagnosis:
    """The readings of all diagnostics of a model.

    Examples:
        >>> from flowpolicies import QFlow
        >>> from flowpolicies.diagnostics import diagnose
        >>> model = QFlow(dataset="pendulum:mixed", seed=0).learn_offline(1_000)
        >>> diagnosis = diagnose(model, samples=64, only=("value_range",))
        >>> diagnosis["value_range"].judgement in ("ok", "look", "bad")
        True
    """

    algorithm: str
    """Name of the algorithm."""
    steps: Mapping[str, int]
    """Number of steps that the model has made of each phase, offline and online."""
    readings: tuple[Reading, ...]
    """The readings, in the order in which they are explained in docs/guides/diagnose.md."""

    def __getitem__(self, name: str) -> Reading:
        """The reading of a diagnostic by its name."""
        found = {reading.name: reading for reading in self.readings}
        if name not in found:
            raise KeyError(f"no diagnostic {name!r} (known: {', '.join(found)})")
        return found[name]

    @property
    def judgement(self) -> Judgement:
        """The worst judgement of all readings."""
        judgements = {reading.judgement for reading in self.readings}
        return "bad" if "bad" in judgements else "look" if "look" in judgements else "ok"

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as JSON data."""
        return {
            "version": VERSION,
            "algorithm": self.algorithm,
            "steps": dict(self.steps),
            "judgement": self.judgement,
            "readings": [reading.to_json() for reading in self.readings],
        }

    def __str__(self) -> str:
        """A paragraph for each reading, the worst ones first."""
        order: dict[str, int] = {"bad": 0, "look": 1, "ok": 2, "not applicable": 3}
        ordered = sorted(self.readings, key=lambda reading: order[reading.judgement])
        steps = ", ".join(f"{number:,} {phase}" for phase, number in self.steps.items())
        return "\n".join([f"{self.algorithm} after {steps} steps: {self.judgement}", *map(_paragraph, ordered)])


def _paragraph(reading: Reading) -> str:
    lines = textwrap.wrap(f"{reading.name}: {reading.sentence}", 100)
    if reading.judgement in ("look", "bad"):
        lines += textwrap.wrap(f"Remedy: {reading.remedy}", 100)
    return textwrap.indent("\n".join(lines), " " * 16).replace(" " * 16, f"{reading.judgement:>14}  ", 1)


def finite(number: float | None) -> float | None:
    """The number, or None if it is NaN or infinite."""
    return None if number is None or not math.isfinite(number) else float(number)
