"""Checks of single columns: NaN, ranges, constant components, bounds and saturation of actions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box, Dict, Space

from flowpolicies.data.dataset.checks import BOUND_TOLERANCE
from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import blocks, read
from flowpolicies.inspection.findings import Array, Finding, Rows, Track, found, is_image, parts

AT_BOUND = 0.999
"""Of the way from the middle to a bound; OGBench's loader clips to 1 - 1e-5, which is at the bound."""
SATURATED = 0.5
"""Share of a component's values at its bounds above which it is reported: most policies stay well below it, those of
bang-bang control and of grippers do not, so that it is a warning."""
NARROW = 0.2
"""Share of its bounds that a component must reach; one that never does was probably scaled to another range."""


class Column(NamedTuple):
    """What one pass over a column gives, for each of its components (flattened); NaN and infinities left out."""

    low: Array
    high: Array
    broken: Rows
    """Rows with a NaN or an infinity."""


def scan(name: str, array: Array, track: Track) -> Column:
    """The range of every component, and where values are broken."""
    low, high, broken = None, None, []
    for block in track(blocks([array]), name):
        values = read(array, block).reshape(block.stop - block.start, -1)
        fine = np.isfinite(values)
        if not fine.all():
            broken.append(np.flatnonzero(~fine.all(axis=1)) + block.start)
            values = np.where(fine, values, np.nan)
            values = values[fine.any(axis=1)]
        if len(values):
            lows, highs = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            low = lows if low is None else np.fmin(low, lows)
            high = highs if high is None else np.fmax(high, highs)
    width = int(np.prod(array.shape[1:]))
    nothing = np.full(width, np.nan)
    rows = np.concatenate(broken) if broken else np.zeros(0, np.intp)
    return Column(nothing if low is None else low, nothing if high is None else high, rows)


def check_values(dataset: TransitionDataset, columns: dict[str, Column]) -> list[Finding]:
    """No NaN, no infinity."""
    return [
        found(
            dataset,
            "values",
            "fault",
            f"{name} are NaN or infinite in {len(column.broken):,} transitions",
            "Repair or drop the trajectories that contain them; one such row makes all weights NaN.",
            rows=column.broken,
        )
        for name, column in columns.items()
        if len(column.broken)
    ]


def check_observations(dataset: TransitionDataset, columns: dict[str, Column]) -> list[Finding]:
    """Components that never change, and values outside the observation space."""
    findings = []
    for name, array in parts(dataset.observations, "observations"):
        column, space = columns[name], _part_of(dataset.observation_space, name)
        constant = np.flatnonzero(column.low == column.high)
        if len(constant) and not is_image(array) and len(dataset) > 1:
            findings.append(
                found(
                    dataset,
                    "observations",
                    "warning",
                    f"{len(constant)} of {len(column.low)} components of {name} never change: {_numbers(constant)}",
                    "Check that the sensor was recorded. Networks see a constant; dividing by its standard deviation "
                    "fails.",
                    count=len(constant),
                )
            )
        low, high = space.low.reshape(-1), space.high.reshape(-1)
        slack = 1e-4 * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
        outside = np.flatnonzero((column.low < low - slack) | (column.high > high + slack))
        if len(outside):
            worst = outside[0]
            findings.append(
                found(
                    dataset,
                    "observations",
                    "warning",
                    f"{len(outside)} components of {name} leave the observation space: {_numbers(outside)} (number "
                    f"{worst} ranges from {column.low[worst]:.6g} to {column.high[worst]:.6g}, its bounds are "
                    f"{low[worst]:.6g} and {high[worst]:.6g})",
                    "Pass the observation_space= that they were recorded in, or check their units.",
                    count=len(outside),
                )
            )
    return findings


def check_actions(dataset: TransitionDataset, column: Column, track: Track) -> list[Finding]:
    """Actions lie inside their bounds, use them, do not stick to them, and move in every component."""
    low, high = (
        bound.reshape(-1).astype(np.float64) for bound in (dataset.action_space.low, dataset.action_space.high)
    )
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-12)
    slack = BOUND_TOLERANCE * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
    outside, at_bound = [], np.zeros(len(low))
    for block in track(blocks([dataset.actions]), "actions: bounds"):
        actions = read(dataset.actions, block).astype(np.float64).reshape(block.stop - block.start, -1)
        wrong = ((actions < low - slack) | (actions > high + slack)).any(axis=1)
        outside.append(np.flatnonzero(wrong) + block.start)
        at_bound += (np.abs(actions - middle) >= AT_BOUND * half).sum(axis=0)
    rows, share = np.concatenate(outside), at_bound / len(dataset)
    if len(rows):
        message = (
            f"{len(rows):,} actions lie outside the bounds of action_space (actions range from "
            f"{column.low.min():.6g} to {column.high.max():.6g}, bounds from {low.min():.6g} to {high.max():.6g})"
        )
        advice = "Pass the action_space= that these actions were made for, or clip them as the environment did."
        return [found(dataset, "actions", "fault", message, advice, rows=rows)]
    return _use_of_bounds(dataset, share, column, middle, half)


def _use_of_bounds(
    dataset: TransitionDataset, share: Array, column: Column, middle: Array, half: Array
) -> list[Finding]:
    reach = np.maximum(np.abs(column.low - middle), np.abs(column.high - middle)) / half
    constant, saturated = np.flatnonzero(column.low == column.high), np.flatnonzero(share > SATURATED)
    narrow = np.setdiff1d(np.flatnonzero(reach < NARROW), constant)
    texts = {
        f"components {_numbers(saturated)} of the actions are at a bound in {share.max():.1%} of transitions": (
            saturated,
            "If the policy was not bang-bang, actions were scaled twice and clipped: compare with what was executed.",
        ),
        f"components {_numbers(narrow)} of the actions use less than {NARROW:.0%} of their bounds": (
            narrow,
            "Check the units: actions in [-1, 1] with the bounds of the actuators, for example.",
        ),
        f"components {_numbers(constant)} of the actions never change": (
            constant,
            "Check that they were recorded; a policy will learn the constant.",
        ),
    }
    return [
        found(dataset, "actions", "warning", message, advice, count=len(which))
        for message, (which, advice) in texts.items()
        if len(which) and len(dataset) > 1
    ]


def _part_of(space: Space[object], name: str) -> Box:
    part = space[name.partition("/")[2]] if isinstance(space, Dict) else space
    assert isinstance(part, Box)
    return part


def _numbers(which: Array) -> str:
    shown = ", ".join(str(number) for number in which[:8])
    return f"{shown}, ..." if len(which) > 8 else shown
