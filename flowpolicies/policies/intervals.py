"""Intervals of the results of evaluations, and how many episodes these play at once: what needs no networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

ROWS = 8
"""Largest number of episodes that share a call of the networks. On CPUs a row of 8 costs a third of a single one, and
a row of more costs not much less."""

RESAMPLES = 2000
"""Number of resamples of every bootstrap."""


def _short(x: float) -> str:
    """Three significant digits, or all digits before the point, so that -1170 and -1222 do not both become -1e+03."""
    return f"{x:.0f}" if 1000 <= abs(x) < 1e6 else f"{x:.3g}"


class Interval(NamedTuple):
    """An estimate with its 95 % confidence interval.

    Examples:
        >>> from flowpolicies.policies import Interval
        >>> print(Interval(mean=0.85, low=0.64, high=0.948))
        0.85 [0.64, 0.948]
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.mean)} [{_short(self.low)}, {_short(self.high)}]"


def success_interval(successes: int, n: int) -> Interval:
    """Wilson's interval of a success rate."""
    from scipy import stats  # Imported here because it takes a second, which acting does not need.

    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return Interval(successes / n, float(interval.low), float(interval.high))


def mean_interval(values: np.ndarray) -> Interval:
    """Percentile bootstrap interval of a mean; for one value or equal values, both bounds are the mean."""
    mean = float(np.mean(values))
    if len(values) < 2 or np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    low, high = bootstrap(np.mean, [values])
    return Interval(mean, float(low), float(high))


def bootstrap(statistic: Callable[..., Any], groups: Sequence[np.ndarray]) -> tuple[Any, Any]:
    """Bounds of the 95 % percentile bootstrap interval of a statistic, with the same draws in each call.

    The bootstrap is stratified: each group is resampled by itself.

    Args:
        statistic: function of as many arrays as there are groups, which takes the keyword `axis` and reduces that axis
            of all of them; its result may have further axes in front.
        groups: samples, each with at least two values.
    """
    from scipy import stats

    options = {"method": "percentile", "rng": np.random.default_rng(0), "n_resamples": RESAMPLES, "vectorized": True}
    low, high = stats.bootstrap(tuple(groups), statistic, **options).confidence_interval
    return low, high
