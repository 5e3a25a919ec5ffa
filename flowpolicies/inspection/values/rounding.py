"""Checks for observations that were rounded: half precision, bytes, or a few decimals."""

from __future__ import annotations

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import read
from flowpolicies.inspection.findings import Finding, Rows, Severity, found, is_quantity, named_arrays, sample_rows
from flowpolicies.tree import Array

SAMPLE = 20_000
"""Number of rows that are examined."""

LEAST_ROWS = 300
"""Number of rows below which nothing is concluded."""

CONTINUOUS = 50
"""Number of different values above which a component counts as continuous; categories and flags have fewer."""

ROUNDED = 0.02
"""Share of the rows that must be rounded to be reported."""

DECIMALS = (1, 2, 3)
"""Numbers of decimals that are tried."""

COARSE = 0.1
"""Share of a usual step above which rounding spoils the steps."""

FINE = 1e-5
"""Share of a usual step below which values that repeat are no rounding."""


def check_rounding(dataset: TransitionDataset) -> list[Finding]:
    """Reports rows whose observations were stored with fewer digits than a simulator or a sensor returns."""
    rows = np.sort(sample_rows(0, len(dataset), SAMPLE))
    rows = rows[~np.isin(rows, dataset.episode_starts)]  # Many environments start in the same state.
    if len(rows) < LEAST_ROWS:
        return []
    findings = []
    for name, array in named_arrays("observations", dataset.observations):
        if not is_quantity(array) or array.dtype == np.float16:
            continue
        values, before = (np.asarray(read(array, at)).reshape(len(rows), -1) for at in (rows, rows - 1))
        if values.dtype.kind != "f":
            continue
        findings += _check(dataset, name, rows, values, before)
    return findings


def _check(dataset: TransitionDataset, name: str, rows: Rows, values: Array, before: Array) -> list[Finding]:
    continuous = np.array([_is_continuous(column) for column in values.T], bool)
    if not continuous.any():
        return []
    values, before = values[:, continuous], before[:, continuous]
    moves = values != before
    busy = moves.mean(axis=1) > 0.5  # Where everything rests, values repeat.
    if busy.sum() < LEAST_ROWS:
        return []
    values, before, rows = values[busy], before[busy], rows[busy]
    with np.errstate(over="ignore", invalid="ignore"):
        half = (values.astype(np.float16).astype(values.dtype) == values).all(axis=1)
    few = _has_few_levels(values)
    decimal = np.any([_has_decimals(values, count).mean(axis=1) > 0.8 for count in DECIMALS], axis=0)
    for word, which in (("to half precision (float16)", half), ("to a few levels or decimals", few | decimal)):
        if which.mean() < ROUNDED:
            continue
        steps = np.median(np.abs(values - before), axis=0)
        grid = np.array([_spacing(column) for column in values[which].T])
        coarse = float(np.median(grid / np.maximum(steps, 1e-12)))
        if coarse < FINE:  # A state to which an agent returns exactly, again and again.
            continue
        text = f"{name} were rounded {word} in {which.mean():.1%} of the rows, to {coarse:.1%} of a usual step"
        advice = "Store them as the environment returns them: the difference of two rounded states is mostly rounding."
        severity: Severity = "fault" if coarse > COARSE else "warning"
        return [found(dataset, "observations", severity, text, advice, rows=rows[which])]
    return []


def _is_continuous(column: Array) -> bool:
    """Whether a component has many values that are not only whole numbers."""
    values = np.unique(column)
    return len(values) > CONTINUOUS and not bool(np.all(values % 1 == 0))


def _has_few_levels(values: Array) -> Array:
    """Whether the values of a row occur in other rows too, each in another one: else the row is a copy, `[n]`."""
    partners, repeated = [], []
    for column in values.T:
        _, first, place, counts = np.unique(column, return_index=True, return_inverse=True, return_counts=True)
        partners.append(first[place])
        repeated.append(counts[place] > 1)
    partner, again = np.array(partners), np.array(repeated)
    is_copy = np.mean(partner == np.median(partner, axis=0), axis=0) > 0.5
    few: Array = (again.mean(axis=0) > 0.8) & ~is_copy
    return few


def _has_decimals(values: Array, count: int) -> Array:
    """Whether each value has at most so many decimals."""
    scaled = values.astype(np.float64) * 10**count
    exact: Array = np.abs(scaled - np.rint(scaled)) < 1e-7 * np.maximum(np.abs(scaled), 1e3)
    return exact


def _spacing(column: Array) -> float:
    """Usual distance of neighbouring levels."""
    levels = np.unique(column).astype(np.float64)
    return float(np.quantile(np.diff(levels), 0.25)) if len(levels) > 1 else 0.0
