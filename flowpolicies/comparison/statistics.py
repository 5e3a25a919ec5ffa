"""Statistics of runs on several tasks, with stratified bootstrap intervals.

As in Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(https://arxiv.org/abs/2108.13264), whose package is rliable: the runs of each task are resampled by themselves, because
tasks are not drawn at random. A group holds the scores of the runs of one task. All bounds are nan if a group has a
single run, which says nothing about other seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from flowpolicies.policies.intervals import Interval, bootstrap

Groups = Sequence[np.ndarray]
"""Scores of the runs of each task."""


def mean_over_tasks(groups: Groups) -> Interval:
    """Mean over tasks of the mean over runs."""
    return _estimate(_mean, groups)


def interquartile_mean(groups: Groups) -> Interval:
    """Mean of the middle half of the scores of all runs of all tasks."""
    return _estimate(_iqm, groups)


def probability_of_improvement(groups: Groups, others: Groups) -> Interval:
    """Probability that a run has a higher score than one of `others` on the same task, as a mean over tasks.

    Equal scores count one half.

    Raises:
        ValueError: if the two do not have the same number of tasks.
    """
    if len(groups) != len(others):
        raise ValueError(f"they have {len(groups)} and {len(others)} tasks, which must be the same ones")
    tasks = len(groups)

    def statistic(*samples: np.ndarray, axis: int = -1) -> Any:
        pairs = zip(samples[:tasks], samples[tasks:], strict=True)
        return np.mean([_above(np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)) for x, y in pairs], axis=0)

    return _estimate(statistic, [*groups, *others])


class Profile(NamedTuple):
    """Performance profile: for each threshold, the share of runs with a higher score, as a mean over tasks."""

    thresholds: np.ndarray
    """Ascending scores that runs may exceed, `[K]`."""
    shares: np.ndarray
    """Share of runs above each threshold, `[K]`."""
    low: np.ndarray
    """Lower bounds of the shares, `[K]`."""
    high: np.ndarray
    """Upper bounds of the shares, `[K]`."""


def performance_profile(groups: Groups, thresholds: np.ndarray) -> Profile:
    """The performance profile of the runs, with a bootstrap interval at each threshold."""

    def statistic(*samples: np.ndarray, axis: int = -1) -> Any:
        return np.mean([[(s > t).mean(axis) for t in thresholds] for s in samples], axis=0)

    shares = statistic(*groups)
    if any(len(group) < 2 for group in groups):
        return Profile(thresholds, shares, *np.full((2, len(thresholds)), np.nan))
    return Profile(thresholds, shares, *bootstrap(statistic, groups))


def _estimate(statistic: Callable[..., Any], groups: Groups) -> Interval:
    value = float(statistic(*groups))
    if any(len(group) < 2 for group in groups):
        return Interval(value, float("nan"), float("nan"))
    if all(np.ptp(group) == 0 for group in groups):
        return Interval(value, value, value)
    low, high = bootstrap(statistic, groups)
    return Interval(value, float(low), float(high))


def _mean(*samples: np.ndarray, axis: int = -1) -> Any:
    return np.mean([sample.mean(axis) for sample in samples], axis=0)


def _iqm(*samples: np.ndarray, axis: int = -1) -> Any:
    from scipy import stats

    return stats.trim_mean(np.concatenate(samples, axis), 0.25, axis=axis)


def _above(x: np.ndarray, y: np.ndarray) -> Any:
    """Share of pairs of the last axes in which x is larger, `[...]`; equal ones count one half."""
    x, y = x[..., :, None], y[..., None, :]
    return ((x > y) + 0.5 * (x == y)).mean((-2, -1))
