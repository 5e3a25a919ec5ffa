"""Checks for values far away from all others: sentinels such as -9999, spikes, and numbers without meaning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import blocks, read
from flowpolicies.inspection.columns import Ranges
from flowpolicies.inspection.findings import (
    Finding,
    Rows,
    Severity,
    Track,
    found,
    is_quantity,
    listed,
    named_arrays,
    sample_rows,
)
from flowpolicies.inspection.values.tails import limit_of_tail
from flowpolicies.tree import Array

SAMPLE = 20_000
"""Number of rows from which the usual values are taken."""

LEAST_ROWS = 100
"""Number of rows below which nothing is concluded."""

BEYOND = 4.0
"""Multiple of the usual distance from the median beyond which values are looked at one by one."""

ABSURD = 1e6
"""Multiple of the usual size of a value beyond which no environment returns it."""

RARE = 0.999
"""Quantile of the distances in the sample beyond which all rows are compared."""

SHORT = 3
"""Number of successive rows up to which values that lie outside are lone."""

INTERMITTENT = 0.5
"""Share of the rows at the median above which a component, such as a contact force, is silent between large values."""

REPEATED = 3
"""Number of rows with the same value that makes it a sentinel."""


class Usual(NamedTuple):
    """Usual values of the components of a column."""

    median: Array
    """Median of each component, `[D]`."""
    spread: Array
    """Distance from the median within which nine tenths of the values are, `[D]`."""
    sample: Array
    """Distances from the median in a sample of rows, `[n, D]`."""


def check_outliers(dataset: TransitionDataset, ranges: dict[str, Ranges], track: Track) -> list[Finding]:
    """Reports values that no other value of their component comes near, in any row.

    Args:
        dataset: the dataset to check.
        ranges: ranges of the dataset's columns.
        track: may show the progress.
    """
    if len(dataset) < LEAST_ROWS:
        return []
    findings = []
    for name, array in named_arrays("observations", dataset.observations):
        if is_quantity(array):
            findings += _check_column(dataset, name, array, ranges[name], track)
    if not findings:  # Those of the next observations are mostly the same.
        for name, array in named_arrays("next_observations", dataset.next_observations):
            if is_quantity(array):
                findings += _check_column(dataset, name, array, ranges[name], track)
    return findings + _check_column(dataset, "rewards", np.asarray(dataset.rewards), ranges["rewards"], track)


def usual_values(array: Array) -> Usual:
    """Usual values of a column, from a sample of its rows."""
    rows = np.sort(sample_rows(0, len(array), SAMPLE))
    values = np.asarray(read(array, rows), np.float64).reshape(len(rows), -1)
    values = np.where(np.isfinite(values), values, 0)
    median = np.median(values, axis=0)
    distances = np.abs(values - median)
    return Usual(median, np.quantile(distances, 0.9, axis=0), distances)


def _check_column(dataset: TransitionDataset, name: str, array: Array, column: Ranges, track: Track) -> list[Finding]:
    usual = usual_values(array)
    limits = _limits(array, usual, column, track, name)
    if np.isinf(limits).all():
        return []
    wrong: dict[Severity, list[tuple[int, Rows, Array]]] = {"fault": [], "warning": []}
    for component, (rows, values) in _beyond(array, usual.median, limits, track, name).items():
        median, spread = float(usual.median[component]), float(usual.spread[component])
        if name == "rewards":  # The reward of a termination may be of any size.
            meant = (np.asarray(dataset.masks)[rows] == 0) & (np.abs(values) <= ABSURD * max(abs(median), spread, 1.0))
            rows, values = rows[~meant], values[~meant]
        is_rare = len(rows) and _is_lone(rows, values - median, max(spread, abs(median)))
        if name != "rewards" and np.mean(usual.sample[:, component] == 0) > INTERMITTENT:
            is_rare = is_rare and _are_codes(values).mean() > 0.5
        if is_rare:
            wrong[_severity(name, values, median, spread)].append((component, rows, values))
    return [_finding(dataset, name, severity, cases) for severity, cases in wrong.items() if cases]


def _limits(array: Array, usual: Usual, column: Ranges, track: Track, name: str) -> Array:
    """Distances from the median beyond which the values of each component lie outside, `[D]`."""
    median, spread, sample = usual
    limits = np.full(len(median), np.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        reach = np.maximum(column.high.astype(np.float64) - median, median - column.low.astype(np.float64))
    suspects = np.flatnonzero(reach > BEYOND * spread)
    for suspect in suspects:
        limits[suspect] = limit_of_tail(sample[:, suspect])
    rare = suspects[np.isinf(limits[suspects])]
    if len(array) > len(sample) and len(rare):
        thresholds = np.full(len(median), np.inf)
        thresholds[rare] = np.quantile(sample[:, rare], RARE, axis=0)
        for component, (_, values) in _beyond(array, median, thresholds, track, name).items():
            sizes = np.abs(values - median[component])
            limits[component] = limit_of_tail(sizes, most=len(sizes) // 2)
    return limits


def _beyond(array: Array, median: Array, limits: Array, track: Track, name: str) -> dict[int, tuple[Rows, Array]]:
    """Rows and values that are further from the median than the limit, for each component that has some."""
    which = np.flatnonzero(np.isfinite(limits))
    places: list[Array] = []
    for block in track(blocks([array]), f"{name}: outliers"):
        values = read(array, block).reshape(block.stop - block.start, -1)[:, which]
        with np.errstate(invalid="ignore", over="ignore"):
            far = np.abs(values - median[which].astype(values.dtype)) > limits[which]
        rows, columns = np.nonzero(far)
        places.append(np.stack([rows + block.start, which[columns], values[rows, columns].astype(np.float64)]))
    rows, columns, values = np.concatenate(places, axis=1)
    return {
        int(component): (rows[columns == component].astype(np.intp), values[columns == component])
        for component in np.unique(columns)
    }


def _is_lone(rows: Rows, distances: Array, usual: float) -> bool:
    """Whether values come and go as errors do; an object that was moved once stays elsewhere for many rows."""
    runs = np.diff(np.flatnonzero(np.diff(rows, prepend=-2, append=rows[-1] + 2) != 1))
    return bool(np.median(runs) <= SHORT or np.min(np.abs(distances)) > 100 * max(usual, 1e-2))


def _severity(name: str, values: Array, median: float, spread: float) -> Severity:
    """Whether values that lie outside are surely wrong."""
    if name != "rewards":
        return "fault"
    # A bonus is a large reward too; codes consist of nines, and sums of rewards are not a million times a reward.
    absurd = np.abs(values) > ABSURD * max(abs(median), spread, 1e-3)
    return "fault" if absurd.any() or _are_codes(values).mean() > 0.5 else "warning"


def _are_codes(values: Array) -> Array:
    """Whether values are numbers that people write for missing ones, or larger than anything that is measured."""
    codes: Array = np.isin(np.round(np.abs(values)), [999, 9999, 99999, 999999]) | (np.abs(values) > ABSURD)
    return codes


def _finding(
    dataset: TransitionDataset, name: str, severity: Severity, cases: list[tuple[int, Rows, Array]]
) -> Finding:
    rows = np.unique(np.concatenate([rows for _, rows, _ in cases]))
    component, _, values = cases[0]
    example, counts = np.unique(values, return_counts=True)
    most = int(np.argmax(counts))
    shown = f"{example[most]:.6g} in {counts[most]:,} rows" if counts[most] >= REPEATED else f"{values[0]:.6g}"
    where = "" if name == "rewards" else f" in the components {listed([case[0] for case in cases], 8)}"
    text = (
        f"{name} are far away from all others{where} in {len(rows):,} transitions (for example {shown}"
        f"{'' if name == 'rewards' else f' in component {component}'})"
    )
    advice = (
        "Such values stand for missing readings or are errors of a sensor or a file. Drop these transitions or repair "
        "them; normalisation and the loss of a critic are ruined by few of them."
    )
    return found(dataset, "values", severity, text, advice, rows=rows)
