"""Checks for readings that break off for some rows: spikes and dropouts inside the range, and sensors that hang."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import read
from flowpolicies.inspection.findings import Finding, Rows, found, is_quantity, listed, named_arrays, not_judged
from flowpolicies.inspection.jumps import stretches
from flowpolicies.inspection.regression import STRETCH
from flowpolicies.inspection.values.tails import limit_of_tail
from flowpolicies.tree import Array

LEAST_COMPONENTS = 3
"""Smallest number of components: the others tell a wrong reading from an agent that was moved."""

LEAST_ROWS = 300
"""Number of rows below which nothing is concluded."""

RETURNED = 0.5
"""Largest distance of the values before and after a deviation, as a share of the deviation."""

DISTINCT = 0.9
"""Share of the values of a component, apart from its most frequent one, that must occur once: then it is continuous."""

MOST_FREQUENT = 0.3
"""Largest share of the rows that hold a dropout's value."""

LEAST_RUNS = 5
"""Smallest number of dropouts with the same value."""

CLOSE = 50
"""Number of values next to a limit whose deviations are compared with those at the limit."""

HANGING = 10
"""Number of equal values in succession after which a component hangs."""

MOST_HANGING = 0.1
"""Largest share of the rows in which a component hangs; objects rest for longer."""

MOVING = 0.02
"""Largest share of the rows in which a component that is always moving does not change, apart from where it hangs."""


class _Series(NamedTuple):
    """The examined rows of a component, without first and last rows of trajectories."""

    rows: Rows
    """Rows of the dataset, `[n]`."""
    before: Array
    """Value in the row before, `[n]`."""
    values: Array
    """Value in the row, `[n]`."""
    after: Array
    """Value in the row after, `[n]`."""


def check_interruptions(dataset: TransitionDataset, budget: int) -> list[Finding]:
    """Reports spikes, dropouts and hanging readings in stretches of rows that have about `budget` rows together."""
    findings = []
    rows = np.concatenate([np.arange(at, min(at + STRETCH, len(dataset))) for at in stretches(len(dataset), budget)])
    ends = np.zeros(len(dataset), bool)
    ends[dataset.episode_ends] = True
    inner = rows[(rows > 0) & (rows < len(dataset) - 1)]
    inner = inner[~ends[inner] & ~ends[inner - 1]]
    if len(inner) < LEAST_ROWS:
        return []
    for name, array in named_arrays("observations", dataset.observations):
        if not is_quantity(array):
            continue
        before, values, after = (
            np.asarray(read(array, inner + lag), np.float64).reshape(len(inner), -1) for lag in (-1, 0, 1)
        )
        if values.shape[1] < LEAST_COMPONENTS:
            why = f"spikes and dropouts inside the range: {name} have fewer than {LEAST_COMPONENTS} components"
            findings.append(not_judged("values", why))
            continue
        moving = np.mean(values != before, axis=1) > 0.5
        lone = _is_lone(before, values, after)
        found_by: dict[str, list[tuple[int, Rows]]] = {"spikes": [], "dropouts": [], "hanging": []}
        for component in range(values.shape[1]):
            series = _Series(inner, before[:, component], values[:, component], after[:, component])
            for kind, wrong in (
                ("spikes", _spikes(series, lone)),
                ("dropouts", _dropouts(series, lone)),
                ("hanging", _hanging(series, moving)),
            ):
                if len(wrong):
                    found_by[kind].append((component, wrong))
        findings += [_finding(dataset, name, kind, cases) for kind, cases in found_by.items() if cases]
    return findings


def _finding(dataset: TransitionDataset, name: str, kind: str, cases: list[tuple[int, Rows]]) -> Finding:
    rows, components = np.unique(np.concatenate([rows for _, rows in cases])), listed([case[0] for case in cases], 8)
    where = f"the components {components} of {name}"
    if kind == "hanging":
        text = f"{where} stay the same for {HANGING} rows or more and move on, while others change: {len(rows):,} times"
        advice = "Check whether a sensor hung or rows were filled with the last value; drop these rows or repair them."
        return found(dataset, "values", "warning", text, advice, rows=rows)
    word = "leave their course and come back" if kind == "spikes" else "break off to one value and come back"
    text = f"{where} {word} in the next row: {len(rows):,} times"
    advice = "A spike or a missing reading looks so. Repair these rows, or drop their trajectories from there on."
    return found(dataset, "values", "fault", text, advice, rows=rows)


def _deviations(series: _Series) -> tuple[Array, Array]:
    """Distance of each value from the middle of its neighbours, and whether these are close to each other, `[n]`."""
    deviation = np.abs(series.values - (series.before + series.after) / 2)
    return deviation, np.abs(series.after - series.before) <= RETURNED * deviation


def _is_lone(before: Array, values: Array, after: Array) -> Array:
    """Whether most components of a row stay on their course; else the agent was moved, `[n]`."""
    deviation = np.abs(values - (before + after) / 2)
    usual = np.quantile(deviation, 0.95, axis=0)
    lone: Array = np.mean(deviation > 5 * np.where(usual > 0, usual, np.inf), axis=1) <= 0.5
    return lone


def _spikes(series: _Series, lone: Array) -> Rows:
    """Rows whose value is far from those of its neighbours, compared with how far values usually are."""
    deviation, returned = _deviations(series)
    if np.mean(deviation > 0) < 0.5:
        return np.zeros(0, np.intp)
    limit = limit_of_tail(deviation)
    wrong: Rows = series.rows[(deviation > limit) & returned & lone]
    return wrong


def _dropouts(series: _Series, lone: Array) -> Rows:
    """Rows that hold the most frequent value of a continuous component, if it interrupts the course of the others."""
    values, counts = np.unique(series.values, return_counts=True)
    most = int(np.argmax(counts))
    others = len(series.values) - counts[most]
    if counts[most] < LEAST_RUNS or counts[most] > MOST_FREQUENT * len(series.values):
        return np.zeros(0, np.intp)
    if np.sum(counts == 1) < DISTINCT * others:
        return np.zeros(0, np.intp)
    deviation, returned = _deviations(series)
    at = series.values == values[most]
    single = at & lone & (series.before != values[most]) & (series.after != values[most])
    if single.sum() < LEAST_RUNS:
        return np.zeros(0, np.intp)
    share, usual = float(np.mean(returned[single])), float(np.mean(returned[~at]))
    if share < 0.5 or share < 2 * usual or np.median(deviation[single]) < np.quantile(deviation[~at], 0.9):
        return np.zeros(0, np.intp)
    if most in (0, len(values) - 1):  # At a limit, such as a clipped speed, values close to it are spikes as well.
        close = np.flatnonzero(~at)[np.argsort(np.abs(series.values[~at] - values[most]), kind="stable")[:CLOSE]]
        if np.median(deviation[single]) < 3 * np.median(deviation[close]):
            return np.zeros(0, np.intp)
    wrong: Rows = series.rows[single]
    return wrong


def _hanging(series: _Series, moving: Array) -> Rows:
    """First rows of long runs of equal values in a component that otherwise changes in every row."""
    still = (series.values == series.before) & moving & (np.diff(series.rows, prepend=series.rows[0] - 1) == 1)
    edges = np.flatnonzero(np.diff(still.astype(np.int8), prepend=0, append=0))
    starts, stops = edges[::2], edges[1::2]
    long = stops - starts >= HANGING - 1
    outside = still.sum() - (stops - starts)[long].sum()
    if not long.any() or outside > MOVING * len(still):
        return np.zeros(0, np.intp)
    if (stops - starts)[long].sum() > MOST_HANGING * len(still):
        return np.zeros(0, np.intp)
    values, leaves = series.values[starts[long]], np.abs(series.after - series.values)[stops[long] - 1]
    at_limit = (values == series.values.min()) | (values == series.values.max())
    # What rests is set in motion gradually, and a sensor that hung has to catch up.
    abrupt = leaves > np.quantile(np.abs(series.values - series.before)[~still], 0.75)
    wrong: Rows = series.rows[starts[long][~at_limit & abrupt]]
    return wrong
