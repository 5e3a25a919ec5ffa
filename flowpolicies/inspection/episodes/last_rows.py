"""Checks of the last rows of trajectories: stale next observations, and time limits stored as terminations."""

from __future__ import annotations

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import read
from flowpolicies.inspection.findings import MOST_ENDS, Finding, Rows, found, observation_pairs, sample_rows
from flowpolicies.tree import Array

LEAST_STALE = 2
"""Smallest number of stale last rows that are reported."""

STALE = 0.02
"""Smallest share of the last rows that must be stale to be reported."""

LEAST_LIMITED = 3
"""Smallest number of terminations after the greatest number of steps that are reported."""

COMMON = 0.2
"""Share of the trajectories that must have the greatest length, so that it is a limit."""

UNUSUAL = 5.0
"""Factor by which terminations at the limit must be more frequent than in the steps before it."""


def check_last_rows(dataset: TransitionDataset) -> list[Finding]:
    """Reports last rows whose next observation is the observation of the row itself, although the rows before move."""
    which = np.sort(sample_rows(0, dataset.num_episodes, MOST_ENDS))
    which = which[dataset.episode_lengths[which] >= 3]
    ends = dataset.episode_ends[which]
    if not len(ends):
        return []
    stale = _is_still(dataset, ends) & ~_is_still(dataset, ends - 1)
    rows = sample_rows(0, len(dataset), MOST_ENDS)
    rows = rows[~np.isin(rows, dataset.episode_ends)]
    usual = float(_is_still(dataset, rows).mean()) if len(rows) else 0.0
    if stale.sum() < LEAST_STALE or stale.mean() < max(STALE, 5 * usual):
        return []
    text = (
        f"the next observation of the last row is the observation of that row, in {stale.sum():,} of {len(ends):,} "
        "trajectories: it was not updated"
    )
    advice = (
        "Store the observation that the last step returned, or drop the last rows: their targets bootstrap from a "
        "state that was not reached."
    )
    used = np.asarray(dataset.masks)[ends[stale]] != 0
    return [found(dataset, "trajectories", "fault" if used.any() else "warning", text, advice, rows=ends[stale])]


def _is_still(dataset: TransitionDataset, rows: Rows) -> Array:
    """Whether the next observation is equal to the observation, `[n]`."""
    still = np.ones(len(rows), bool)
    for now, then in observation_pairs(dataset).values():
        same = read(now, rows) == read(then, rows)
        still &= same.reshape(len(rows), -1).all(axis=1)
    return still


def check_limits(dataset: TransitionDataset, limit: int | None = None) -> list[Finding]:
    """Reports terminations that pile up at the greatest length, where a time limit ends the other trajectories.

    Args:
        dataset: the dataset, whose trajectories of the greatest length do not all terminate.
        limit: time limit of its environment; None: it is unknown.
    """
    lengths, terminated = dataset.episode_lengths, np.asarray(dataset.masks)[dataset.episode_ends] == 0
    longest = int(lengths.max())
    last = lengths == longest
    count = int((terminated & last).sum())
    if longest < 10 or count < LEAST_LIMITED or last.mean() < COMMON or (terminated[last].all() and limit is None):
        return []
    # Trajectories that reached these steps, and those of them that terminated there, are the rate to compare with.
    reached = lengths >= max(longest // 2, 1)
    before = int((terminated & ~last & reached).sum())
    steps = float(np.sum(np.minimum(lengths[reached], longest) - longest // 2))
    expected = (before + 1) / max(steps, 1) * int(last.sum())
    if count < UNUSUAL * expected:
        return []
    is_limit = limit == longest
    text = f"{count:,} of {last.sum():,} trajectories of the greatest length, {longest:,} steps, terminate there"
    text += f", which is the time limit of the environment ({before:,} terminate in the second half before it)"
    if not is_limit:
        text = text.replace(", which is the time limit of the environment", "; the others do not")
    advice = (
        "A time limit that is recorded as a termination teaches the value function that time limits are terminal "
        "states. Set masks to 1 there, unless the task really ends."
    )
    rows = dataset.episode_ends[terminated & last]
    return [found(dataset, "flags", "fault" if is_limit else "warning", text, advice, rows=rows)]
