"""Checks for steps that are far longer than all others: resets inside trajectories, and ends that are one row off."""

from __future__ import annotations

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.inspection.findings import Finding, Rows, Severity, Vectors, found
from flowpolicies.inspection.jumps import stretches
from flowpolicies.inspection.regression import STRETCH
from flowpolicies.inspection.values.tails import limit_of_tail
from flowpolicies.tree import Array

LEAST_ROWS = 300
"""Number of rows below which nothing is concluded."""

LEAST_LEAPS = 3
"""Smallest number of leaps that are reported."""

WIDE = 0.4
"""Share of the components that must leap at a reset."""

LEAST_PERIOD = 5
"""Smallest number of steps between leaps that counts as a period."""

REGULAR = 0.8
"""Share of the leaps that must be a multiple of one number of steps apart."""

AT_EDGE = 0.5
"""Share of the trajectories whose first or second last step must be a leap, so that ends are one row off."""


def find_leaps(dataset: TransitionDataset, budget: int) -> Rows:
    """Rows whose step is far longer than all others in several components.

    Sizes are compared with the median of a component and not with its largest values, which leaps would raise.
    """
    vectors = Vectors(dataset)
    if len(dataset) < LEAST_ROWS or not vectors.width:
        return np.zeros(0, np.intp)
    rows = np.concatenate([np.arange(at, min(at + STRETCH, len(dataset))) for at in stretches(len(dataset), budget)])
    sizes = np.concatenate([_sizes(vectors.steps(rows[at : at + STRETCH])) for at in range(0, len(rows), STRETCH)])
    scale = np.quantile(sizes, 0.75, axis=0)
    known = scale > 1e-8
    if not known.any():
        return np.zeros(0, np.intp)
    ratios = sizes[:, known] / scale[known]
    # The component at the edge of the widest leap that counts: as many components leap at least as far.
    place = int(np.ceil((1 - WIDE) * ratios.shape[1])) - 1 if ratios.shape[1] > 1 else 0
    joint = np.partition(ratios, max(place, 0), axis=1)[:, max(place, 0)]
    leaps = joint > limit_of_tail(joint)
    if ratios.shape[1] == 2 and leaps.any():  # One component of two that leaps is a collision: a speed that becomes 0.
        both = (ratios[leaps] > 2 * np.quantile(ratios, 0.95, axis=0)).all(axis=1)
        leaps &= both.mean() >= 0.5
    return rows[leaps]


def _sizes(steps: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.abs(np.where(np.isfinite(steps), steps, 0))


def check_leaps(dataset: TransitionDataset, leaps: Rows, *, simulated: bool | None) -> list[Finding]:
    """Reports leaps.

    Args:
        dataset: the dataset.
        leaps: rows of `find_leaps`.
        simulated: whether the simulator was tried on the leaps inside trajectories and makes none of those that are
            left; None: there is no simulator.
    """
    starts, ends = dataset.episode_starts, dataset.episode_ends
    edges = _check_edges(dataset, leaps)
    inner = leaps[~np.isin(leaps, starts) & ~np.isin(leaps, ends)]
    if edges or len(inner) < LEAST_LEAPS:
        return edges
    advice = (
        "Ends of episodes are probably not marked: set terminals to 1 there (and masks to 0 unless it was a time "
        "limit), and give these rows their true next observations or drop them. An environment that moves its agent to "
        "another place during an episode looks the same and is right."
    )
    episodes = np.searchsorted(ends, inner)
    period = _period(inner - starts[episodes] + 1, episodes)
    text = f"steps inside trajectories that are far longer than all others: {len(inner):,}"
    if period is not None:
        text += f", one every {period:,} steps"
    if simulated:
        text += "; the simulator makes none of them"
    severity: Severity = "fault" if simulated or period is not None else "warning"
    return [found(dataset, "trajectories", severity, text, advice, rows=inner)]


def _check_edges(dataset: TransitionDataset, leaps: Rows) -> list[Finding]:
    starts, ends = dataset.episode_starts, dataset.episode_ends
    for rows, where, side in ((starts[1:], "first", "early"), (ends[:-1], "last", "late")):
        hits = np.intersect1d(rows, leaps)
        if len(hits) >= LEAST_LEAPS and len(hits) >= AT_EDGE * len(rows):
            text = (
                f"the {where} step of {len(hits):,} of {len(starts):,} trajectories is far longer than all others: "
                f"terminals are one row {side}"
            )
            advice = "Set terminals to 1 on the last row of each trajectory, and store the state that it led to."
            return [found(dataset, "trajectories", "fault", text, advice, rows=hits)]
    return []


def _period(offsets: Rows, episodes: Rows) -> int | None:
    """Number of steps of which most leaps are a multiple away from the start of their trajectory."""
    gaps = np.concatenate([offsets, np.diff(offsets)[np.diff(episodes) == 0]])
    candidates, counts = np.unique(gaps[gaps >= LEAST_PERIOD], return_counts=True)
    for candidate in candidates[np.argsort(-counts, kind="stable")][:10]:
        if np.mean(offsets % candidate == 0) >= REGULAR:
            return int(candidate)
    return None
