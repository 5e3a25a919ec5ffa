"""Checks of one column at a time: NaN, ranges, constant components, bounds and saturation of actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
from gymnasium.spaces import Box, Space

from flowpolicies.data.dataset.checks import BOUND_TOLERANCE
from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import blocks, read
from flowpolicies.inspection.findings import Finding, Rows, Track, found, is_image, listed, named_arrays
from flowpolicies.tree import Array, named_leaves

AT_BOUND = 0.999
"""Share of the way from the middle to a bound beyond which an action counts as being at the bound.

Datasets of OGBench are clipped to 1 - 1e-5, as in `envs/env_utils.py` of https://github.com/ColinQiyangLi/qc.
"""

SATURATED = 0.5
"""Share of a component's actions at its bounds above which it is reported.

Most policies stay well below it. Bang-bang control and grippers do not, so that the finding is only a warning.
"""

NARROW = 0.2
"""Share of the way from the middle to a bound that an action component must reach at least once.

A component that never does was probably scaled to another range.
"""


class Ranges(NamedTuple):
    """Ranges of the components of a column (flattened), without NaN and infinities."""

    low: Array
    """Smallest value of each component, `[D]`; NaN if no value is finite."""
    high: Array
    """Largest value of each component, `[D]`; NaN if no value is finite."""
    broken: Rows
    """Rows with a NaN or an infinity, ascending."""


def scan(name: str, array: Array, track: Track) -> Ranges:
    """Reads a column once and returns its ranges and its broken rows."""
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
    return Ranges(nothing if low is None else low, nothing if high is None else high, rows)


def check_values(dataset: TransitionDataset, ranges: dict[str, Ranges]) -> list[Finding]:
    """Reports NaN and infinities."""
    return [
        found(
            dataset,
            "values",
            "fault",
            f"{name} are NaN or infinite in {len(column.broken):,} transitions",
            "Repair or drop the trajectories that contain them: one such row turns all weights of a network into NaN.",
            rows=column.broken,
        )
        for name, column in ranges.items()
        if len(column.broken)
    ]


def check_observations(dataset: TransitionDataset, ranges: dict[str, Ranges]) -> list[Finding]:
    """Reports components of the observations that never change, and values outside the observation space."""
    findings = []
    space_of_all = cast("Space[Any] | Mapping[str, Space[Any]]", dataset.observation_space)
    spaces = named_leaves("observations", space_of_all)
    for name, array in named_arrays("observations", dataset.observations):
        column, space = ranges[name], spaces[name]
        constant = np.flatnonzero(column.low == column.high)
        if len(constant) and not is_image(array) and len(dataset) > 1:
            findings.append(
                found(
                    dataset,
                    "observations",
                    "warning",
                    f"{len(constant)} of {len(column.low)} components of {name} never change: {listed(constant, 8)}",
                    "Check that they were recorded. Nothing can be learned from a constant, and normalisation divides "
                    "by its standard deviation, which is 0.",
                    count=len(constant),
                )
            )
        if not isinstance(space, Box):  # Numbers of categories were checked when the dataset was built.
            continue
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
                    f"{len(outside)} of {len(low)} components of {name} lie outside the observation space: "
                    f"{listed(outside, 8)} (component {worst} ranges from {column.low[worst]:.6g} to "
                    f"{column.high[worst]:.6g}, its bounds are {low[worst]:.6g} and {high[worst]:.6g})",
                    "Pass the observation_space= of the environment that recorded them, or check their units.",
                    count=len(outside),
                )
            )
    return findings


def check_actions(dataset: TransitionDataset, column: Ranges, track: Track) -> list[Finding]:
    """Reports actions outside of their bounds, and components that are mostly at a bound, far from both, or constant.

    Args:
        dataset: the dataset to check.
        column: ranges of the actions.
        track: may show the progress.
    """
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
        advice = "Pass the action_space= of the environment that recorded them, or clip them as that environment did."
        return [found(dataset, "actions", "fault", message, advice, rows=rows)]
    return _use_of_bounds(dataset, share, column, middle, half)


def _use_of_bounds(
    dataset: TransitionDataset, share: Array, column: Ranges, middle: Array, half: Array
) -> list[Finding]:
    """Warnings about action components; `share` `[A]` of the actions are at a bound, which is `half` from `middle`."""
    reach = np.maximum(np.abs(column.low - middle), np.abs(column.high - middle)) / half
    constant, saturated = np.flatnonzero(column.low == column.high), np.flatnonzero(share > SATURATED)
    narrow = np.setdiff1d(np.flatnonzero(reach < NARROW), constant)
    texts = {
        f"action components at a bound in up to {share.max():.1%} of the transitions: {listed(saturated, 8)}": (
            saturated,
            "Unless the policy was bang-bang, the actions were probably scaled twice and clipped: compare them with "
            "the actions that were executed.",
        ),
        f"action components that use less than {NARROW:.0%} of their bounds: {listed(narrow, 8)}": (
            narrow,
            "Check the units: the actions may be scaled to [-1, 1] while action_space has the bounds of the actuators.",
        ),
        f"action components that never change: {listed(constant, 8)}": (
            constant,
            "Check that they were recorded; a policy will learn the constant.",
        ),
    }
    return [
        found(dataset, "actions", "warning", message, advice, count=len(which))
        for message, (which, advice) in texts.items()
        if len(which) and len(dataset) > 1
    ]
