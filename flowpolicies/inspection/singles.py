"""Checks of single trajectories, whose wrong actions or observations the checks of the whole dataset would not see."""

from __future__ import annotations

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import read
from flowpolicies.inspection.findings import (
    SIDES,
    Finding,
    Rows,
    Vectors,
    found,
    listed,
    observation_pairs,
    sample_rows,
)
from flowpolicies.inspection.regression import (
    EXPLAINED,
    LEAST_GAIN,
    LEAST_ROWS,
    STRETCH,
    Ridge,
    clip,
    deviations,
)
from flowpolicies.tree import Array

LEAST_STEPS = 20
"""Number of steps below which a trajectory is not judged."""

LEAST_SHARE = 0.1
"""Share of the error with a trajectory's own actions by which the error with other actions must be smaller."""

ODD = 0.1
"""Share of the trajectories that may be better explained without actions.

If there are more, the observations do not determine the effect of an action, and such trajectories are not reported.
"""

MOST_TRAJECTORIES = 20_000
"""Largest number of trajectories that are examined."""


def check_single_actions(dataset: TransitionDataset, rows: Rows, budget: int) -> list[Finding]:
    """Reports trajectories whose steps are better explained by the actions of neighbouring rows, or by no action.

    Args:
        dataset: the dataset to check, whose actions as a whole belong to their rows.
        rows: rows for the regression that learns the dynamics.
        budget: number of rows to examine.
    """
    if len(rows) < LEAST_ROWS or not Vectors(dataset).width or dataset.num_episodes < 3:
        return []
    errors = _Errors(dataset, rows)
    if not errors.components.any():
        return []
    where = _inner_rows(dataset, budget)
    episodes, at = np.unique(np.searchsorted(dataset.episode_ends, where), return_inverse=True)
    steps, own, none = np.bincount(at), errors(where, 0), errors(where, None)
    # In standard errors: the largest gain that chance is expected to cause in so many comparisons, and a margin of 0.5.
    least_gain = 0.5 + np.sqrt(2 * np.log(3 * len(episodes)))

    def mean(values: Array) -> Array:
        return np.bincount(at, values) / steps

    def is_better(other: Array) -> Array:
        gain = mean(own - other)
        deviation = np.sqrt(np.maximum(mean((own - other) ** 2) - gain**2, 1e-18) / steps)
        clear: Array = (gain > least_gain * deviation) & (gain > LEAST_SHARE * mean(own))
        return clear & (steps >= LEAST_STEPS)

    found_by: dict[int | None, Array] = {}
    for lag in (1, -1):
        other = errors(where, lag)
        found_by[lag] = is_better(other) & (mean(other) < mean(none))
    if np.mean(mean(own - none) > 0) <= ODD:
        found_by[None] = is_better(none) & ~found_by[1] & ~found_by[-1]
    return [_finding(dataset, lag, episodes[which]) for lag, which in found_by.items() if which.any()]


def _finding(dataset: TransitionDataset, lag: int | None, which: Array) -> Finding:
    """A finding about the trajectories `which`.

    Args:
        dataset: the dataset.
        lag: how many rows later the actions are that explain the steps better; None: no action explains them better.
        which: numbers of trajectories, ascending.
    """
    firsts = dataset.episode_starts[which]
    shown = f"{len(which):,} ({listed(which, 5)})"
    if lag is None:
        text = f"trajectories whose actions explain their steps worse than no action does: {shown}"
        advice = "Their actions may belong to another trajectory, be in another order, or have another sign or scale."
        return found(dataset, "alignment", "warning", text, advice, rows=firsts)
    text = (
        f"trajectories whose actions are shifted by one row: {shown}; the actions of the row {SIDES[lag]} explain "
        "their steps"
    )
    advice = "Rebuild these trajectories so that actions[i] is the one taken in observations[i], or drop them."
    return found(dataset, "alignment", "fault", text, advice, rows=firsts)


class _Errors:
    """Squared errors of a regression over all trajectories that predicts steps from observations and actions."""

    def __init__(self, dataset: TransitionDataset, rows: Rows) -> None:
        self.vectors = vectors = Vectors(dataset)
        seen, unseen = rows[::2], rows[1::2]
        steps = vectors.steps(seen)
        self.scale = deviations(steps, constant=np.inf)
        self.mean = vectors.actions(seen).mean(axis=0)
        self.model = Ridge(vectors.inputs(seen), clip(steps / self.scale))
        own, none = (self._squares(unseen, lag).mean(axis=0) for lag in (0, None))
        # The components that can be predicted, and better with the action than without; only their errors are summed.
        self.components = (own < 1 - EXPLAINED) & (none - own > LEAST_GAIN)

    def __call__(self, rows: Rows, lag: int | None) -> Array:
        """Errors `[n]` in `rows` with the actions of the rows `lag` rows later; None: with the mean action instead."""
        stretches = [rows[start : start + STRETCH] for start in range(0, len(rows), STRETCH)]
        return np.concatenate([self._squares(part, lag)[:, self.components].sum(axis=1) for part in stretches])

    def _squares(self, rows: Rows, lag: int | None) -> Array:
        actions = np.tile(self.mean, (len(rows), 1)) if lag is None else self.vectors.actions(rows + lag)
        inputs = np.concatenate([self.vectors.now(rows), actions], axis=1)
        squares: Array = (clip(self.vectors.steps(rows) / self.scale) - self.model.predict(inputs)) ** 2
        return squares


def _inner_rows(dataset: TransitionDataset, budget: int) -> Rows:
    """About `budget` rows, ascending: whole trajectories without their first and last rows."""
    order = sample_rows(0, dataset.num_episodes, MOST_TRAJECTORIES)
    lengths = dataset.episode_lengths[order]
    chosen = np.sort(order[np.cumsum(lengths) <= max(budget, int(lengths[0]))])
    starts, ends = dataset.episode_starts[chosen], dataset.episode_ends[chosen]
    return np.concatenate([np.arange(start + 1, end) for start, end in zip(starts, ends, strict=True)])


def check_frozen(dataset: TransitionDataset) -> list[Finding]:
    """Reports trajectories whose observations are the same at the beginning, in the middle and at the end."""
    which = np.sort(sample_rows(0, dataset.num_episodes, MOST_TRAJECTORIES))
    which = which[dataset.episode_lengths[which] > LEAST_STEPS]
    starts, ends = dataset.episode_starts[which], dataset.episode_ends[which]
    still = np.ones(len(ends), bool)
    for now, then in observation_pairs(dataset).values():
        first = read(now, starts)
        for other in (read(now, (starts + ends) // 2), read(now, ends), read(then, ends)):
            still &= (first == other).all(axis=tuple(range(1, first.ndim)))
    if not still.any() or still.all():  # If all of them do, `check_observations` reports constant components.
        return []
    text = f"trajectories whose observations do not change: {still.sum():,} of {len(still):,}"
    advice = "Check that their observations were recorded, instead of one observation being repeated."
    return [found(dataset, "observations", "warning", text, advice, rows=starts[still])]
