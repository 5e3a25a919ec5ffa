"""Which of many numbers lie outside of all others, however heavy the tail of the others is."""

from __future__ import annotations

import numpy as np

from flowpolicies.tree import Array

GAP = 4.0
"""Smallest factor between a number and the next smaller one that sets it apart."""

CHANCE = 1e-4
"""Chance that the tail of the others makes such a gap."""

TAIL = 0.01
"""Share of the numbers, the largest ones, from which the weight of the tail is estimated."""

LEAST_TAIL = 10
"""Smallest number of these numbers."""

MOST_APART = 0.12
"""Largest share of the numbers that may lie outside: more are a second kind of data, not wrong values."""


def limit_of_tail(sizes: Array, *, most: int | None = None) -> float:
    """The smallest number that does not lie outside, or infinity if none does.

    A number lies outside if a gap is below it that the tail of the smaller numbers hardly ever makes: the sizes of
    a tail follow a power law, whose exponent is Hill's estimate, and neighbouring sizes x < y have y > g x with
    probability g ** -exponent.

    Args:
        sizes: numbers of at least 0, `[n]`.
        most: largest number of them that may lie outside; None: a share of `MOST_APART`.

    Returns:
        The limit above which numbers lie outside.
    """
    ordered = np.sort(sizes[np.isfinite(sizes)].astype(np.float64))
    most = int(len(ordered) * MOST_APART) if most is None else most
    first = max(2 * LEAST_TAIL, len(ordered) - most)
    below, above = ordered[first - 1 : -1], ordered[first:]
    for place in np.flatnonzero((below > 0) & (above / GAP > below)) + first:
        tail = ordered[place - max(LEAST_TAIL, int(TAIL * place)) : place]
        tail = tail[tail > 0]
        gap, slope = float(np.log(ordered[place] / tail[-1])), float(np.mean(np.log(tail / tail[0])))
        if gap > -np.log(CHANCE) * slope:
            return float(np.sqrt(ordered[place - 1]) * np.sqrt(ordered[place]))
    return np.inf
