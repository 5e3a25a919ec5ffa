"""Intervals of the results of evaluations, and how many episodes these play at once: what needs no networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

ROWS = 8
"""Largest number of episodes that share a call of the networks. On CPUs a row of 8 costs a third of a single one, and
a row of more costs not much less."""


def _short(x: float) -> str:
    """Three significant digits, or all digits before the point, so that -1170 and -1222 do not both become -1e+03."""
    return f"{x:.0f}" if 1000 <= abs(x) < 1e6 else f"{x:.3g}"


class Interval(NamedTuple):
    """An estimate with its 95 % confidence interval."""

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
    from scipy import stats

    found = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(0), n_resamples=2000)
    return Interval(mean, float(found.confidence_interval.low), float(found.confidence_interval.high))


def iqm_interval(groups: Sequence[np.ndarray]) -> Interval:
    """Interquartile mean of all values, the mean of the middle half, with its stratified percentile bootstrap interval.

    As in Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
    (https://arxiv.org/abs/2108.13264): each group is resampled by itself.

    Args:
        groups: scores of the seeds of each task.

    Returns:
        The interquartile mean; both bounds are nan if a group has a single value, which says nothing about seeds.
    """
    from scipy import stats

    def iqm(*samples: np.ndarray, axis: int = -1) -> Any:
        return stats.trim_mean(np.concatenate(samples, axis), 0.25, axis=axis)

    mean = float(iqm(*groups))
    if any(len(group) < 2 for group in groups):
        return Interval(mean, float("nan"), float("nan"))
    if all(np.ptp(group) == 0 for group in groups):
        return Interval(mean, mean, mean)
    options = {"method": "percentile", "rng": np.random.default_rng(0), "n_resamples": 2000, "vectorized": True}
    low, high = stats.bootstrap(tuple(groups), iqm, **options).confidence_interval
    return Interval(mean, float(low), float(high))
