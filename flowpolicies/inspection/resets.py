"""Checks for resets inside trajectories: ends that nobody marked, in data whose next observations are the next rows.

In such data a reset looks like a step. `jumps` finds single ones as the few rows that contradict the dynamics of all
others. If no end was marked at all, resets are a part of what is usual, and two other signs tell them from collisions
and other steps that are hard to predict: the rows with the largest errors are at multiples of one number of steps, or
they lead from far away to where trajectories start.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.inspection.findings import Finding, Rows, Severity, Vectors, found
from flowpolicies.inspection.jumps import LARGEST_ERROR, stretches
from flowpolicies.inspection.regression import LEAST_ROWS, MOST_ROWS, STRETCH, Ridge, clip
from flowpolicies.tree import Array

LEAST_RESETS = 4
"""Number of resets below which nothing is concluded."""

LEAST_PERIOD = 5
"""Smallest number of steps between resets that counts as a period."""

REGULAR = 0.8
"""Share of the rows with the largest errors that must be at multiples of the period, and share of these multiples that
must have such errors.

In data of fourteen of Gymnasium's environments without marked ends both were above 0.8 at resets. In the same data with
all ends marked no period reached it.
"""

RETURNING = 0.8
"""Share of the rows with the largest errors that must lead to where trajectories start.

In the same data without marked ends it was above 0.8 (except in Pendulum, whose starts are spread over all angles, and
in inverted pendulums that fall after a few steps), and below 0.05 with all ends marked.
"""

NEAR = 0.1
"""Share of all rows that count as near a start: those with the smallest distances."""

WIDE = 0.4
"""Share of the components that must jump at a reset. A clock or a counter that restarts is one component."""

UNUSUAL = 0.95
"""Quantile of a component's errors above which the component jumps."""

LARGEST = 3.0
"""Multiple of that quantile to which errors in units of usual errors are clipped."""

MOST_STARTS = 10
"""Number of starts of trajectories to which distances are measured."""

SHARE_OF_RESETS = 1 / 12
"""Largest share of the rows that are searched for resets."""


class Resets(NamedTuple):
    """Rows that look like resets."""

    rows: Rows
    """Rows of the dataset, ascending."""
    period: int | None
    """Number of steps between two resets, if it is always the same."""


class _Steps(NamedTuple):
    """The examined rows of a dataset, and how their steps compare with the usual ones."""

    rows: Rows
    """Rows inside trajectories `[n]`, ascending; the last rows of trajectories are not among them."""
    offsets: Rows
    """Number of steps of the trajectory up to and including the row, `[n]`."""
    orders: tuple[Rows, Rows]
    """Positions in `rows`, those with the largest errors first: errors in units of a usual step, and of usual errors.

    The first finds resets that are larger than all steps, the second those that a few components of large errors hide.
    """
    jumping: Array
    """Share of the components whose error is unusual, `[n]`."""
    returns: Array
    """Whether the step leads from far away to where trajectories start, `[n]`."""


def find_resets(dataset: TransitionDataset, budget: int) -> Resets | None:
    """The rows that look like resets, or None.

    Args:
        dataset: the dataset to search.
        budget: number of rows to search.
    """
    vectors = Vectors(dataset)
    blocks = [np.arange(at, min(at + STRETCH, len(dataset))) for at in stretches(len(dataset), budget)]
    rows = np.concatenate(blocks)
    rows = rows[np.asarray(dataset.terminals)[rows] != 1]
    if len(rows) < LEAST_ROWS or not vectors.width:
        return None
    steps = _examine(dataset, vectors, rows)
    most = max(LEAST_RESETS + 1, int(len(rows) * SHARE_OF_RESETS))
    regular, returning = [], []
    counts = np.unique(np.geomspace(LEAST_RESETS, most, 24).astype(int))
    for order, count in itertools.product(steps.orders, counts):
        chosen = np.sort(order[:count])
        if np.median(steps.jumping[chosen]) < WIDE:
            continue
        regular += _regular(steps, chosen)
        back = chosen[steps.returns[chosen]]
        if len(back) >= max(LEAST_RESETS, RETURNING * len(chosen)):
            returning.append(Resets(steps.rows[back], None))
    candidates = regular or returning
    return max(candidates, key=lambda resets: len(resets.rows), default=None)


def _examine(dataset: TransitionDataset, vectors: Vectors, rows: Rows) -> _Steps:
    now, then, inputs = vectors.now(rows), vectors.next(rows), vectors.inputs(rows)
    steps = then - now
    usual, all_steps = _spread(steps), steps.std(axis=0)
    # Components that change at resets only, such as goals, have no usual step.
    scale = np.where(
        usual > 1e-8, np.maximum(usual, 1e-3 * all_steps), np.where(all_steps > 1e-8, 1e-2 * all_steps, np.inf)
    )
    outputs = clip(steps / scale)
    errors = _errors(inputs, outputs, steps / scale, np.arange(len(rows)))
    total = np.mean(errors**2, axis=1)
    errors = _errors(inputs, outputs, steps / scale, np.flatnonzero(total < np.quantile(total, 1 - SHARE_OF_RESETS)))
    limits = np.maximum(np.quantile(errors, UNUSUAL, axis=0), 1e-3)
    starts = vectors.now(np.sort(dataset.episode_starts[:MOST_STARTS]))
    after, before = _distances(then, starts, _spread(now)), _distances(now, starts, _spread(now))
    trajectory = np.searchsorted(dataset.episode_ends, rows)
    return _Steps(
        rows=rows,
        offsets=rows - dataset.episode_starts[trajectory] + 1,
        orders=(
            np.argsort(-np.mean(np.minimum(errors, LARGEST_ERROR) ** 2, axis=1), kind="stable"),
            np.argsort(-np.mean(np.minimum(errors / limits, LARGEST) ** 2, axis=1), kind="stable"),
        ),
        jumping=np.mean(errors > limits, axis=1),
        returns=(after < np.quantile(after, NEAR)) & (after < 0.5 * before),
    )


def _errors(inputs: Array, outputs: Array, steps: Array, seen: Rows) -> Array:
    """Absolute errors of a regression that learns from every second of the rows `seen`, at most `MOST_ROWS`."""
    seen = seen[:: max(2, len(seen) // MOST_ROWS)]
    model = Ridge(inputs[seen], outputs[seen])
    parts = [slice(at, at + STRETCH) for at in range(0, len(inputs), STRETCH)]
    return np.concatenate([np.abs(steps[part] - model.predict(inputs[part])) for part in parts])


def _spread(values: Array) -> Array:
    """Standard deviation of each component as if it were normal, from quantiles, which outliers do not change."""
    low, high = np.quantile(values, (0.05, 0.95), axis=0)
    spread: Array = (high - low) / 3.29
    return spread


def _distances(states: Array, starts: Array, spread: Array) -> Array:
    """Distance of each state to the nearest start, `[n]`."""
    scale = np.where(spread > 1e-8, spread, np.inf)
    distances: Array = np.min([np.mean(((states - start) / scale) ** 2, axis=1) for start in starts], axis=0)
    return np.sqrt(distances)


def _regular(steps: _Steps, chosen: Rows) -> list[Resets]:
    """The chosen rows that are at multiples of one period, for each period that explains most of them."""
    offsets = steps.offsets[chosen]
    periods, counts = np.unique(np.concatenate([np.diff(steps.rows[chosen]), offsets]), return_counts=True)
    periods = periods[np.argsort(-counts, kind="stable")]
    found = []
    for period in periods[periods >= LEAST_PERIOD][:MOST_STARTS]:
        hits = chosen[offsets % period == 0]
        multiples = int(np.sum(steps.offsets % period == 0))
        if len(hits) >= max(LEAST_RESETS, REGULAR * len(chosen)) and len(hits) >= REGULAR * multiples:
            found.append(Resets(steps.rows[hits], int(period)))
    return found


def check_resets(dataset: TransitionDataset, resets: Resets | None, *, simulated: bool = False) -> list[Finding]:
    """Reports resets inside trajectories.

    Args:
        dataset: the dataset.
        resets: the result of `find_resets`.
        simulated: whether the simulator was tried on these rows and makes none of the steps.
    """
    if resets is None:
        return []
    number = f"{len(resets.rows):,}"
    advice = (
        "Ends of episodes are probably not marked: set terminals to 1 there (and masks to 0 unless it was a time "
        "limit), and give these rows their true next observations or drop them. "
    )
    if resets.period is not None:
        text = (
            f"resets inside trajectories, one every {resets.period:,} steps: {number} jumps, and hardly any elsewhere"
        )
        return [found(dataset, "trajectories", "fault", text, advice.rstrip(), rows=resets.rows)]
    text = f"the steps that contradict the dynamics most lead back to where trajectories start: {number}"
    advice += "An environment that puts its agent back during an episode looks the same and is right."
    severity: Severity = "fault" if simulated else "warning"
    return [found(dataset, "trajectories", severity, text, advice, rows=resets.rows)]
