"""How long work takes: guesses, and what was measured of them so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np

EVIDENCE = 1.0
"""How much a guess counts, as the number of seconds of measured work that count as much."""


@final
class Costs:
    """Seconds per unit of each kind of work, by least squares over intervals in which several kinds may be done.

    A kind that was not measured yet is taken to be as much slower or faster than its guess as the other kinds are.

    Args:
        guesses: kind of work -> seconds that a unit of it takes until it is measured.
    """

    def __init__(self, guesses: Mapping[str, float]) -> None:
        self._places = {kind: place for place, kind in enumerate(guesses)}
        self._guesses = np.array(list(guesses.values()))
        # Normal equations for the factors between costs and guesses. The last unknown is the factor of the computer,
        # from which each of the others differs by a square of 1 / EVIDENCE or so, and which itself is 1 or so.
        n = len(guesses)
        self._matrix, self._right = EVIDENCE * np.eye(n + 1), np.zeros(n + 1)
        self._matrix[-1, :-1] = self._matrix[:-1, -1] = -EVIDENCE
        self._matrix[-1, -1] = (n + 0.1) * EVIDENCE
        self._right[-1] = 0.1 * EVIDENCE

    def measure(self, work: Mapping[str, float], seconds: float) -> None:
        """Learns from an interval of time in which one process did this work and nothing else.

        Args:
            work: kind of work -> number of its units.
            seconds: length of the interval.
        """
        row = np.zeros(len(self._right))
        for kind, units in work.items():
            row[self._places[kind]] = units * self._guesses[self._places[kind]]
        weight = 1 / max(row.sum(), 1e-6)  # Errors grow as the root of the length of an interval.
        self._matrix += weight * np.outer(row, row)
        self._right += weight * seconds * row

    def of(self, work: Mapping[str, float]) -> float:
        """Seconds that one process is expected to need for this work."""
        factors = np.linalg.solve(self._matrix, self._right).clip(min=0.05)
        costs = factors[:-1] * self._guesses
        return float(sum(units * costs[self._places[kind]] for kind, units in work.items()))
