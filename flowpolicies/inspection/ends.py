"""Checks of the ends of trajectories, for datasets whose next observations were made from the next rows.

In such data the next observation of a trajectory's last row is the first observation of the next trajectory. The true
one was lost, and the reset looks like a step, which is usually a large one. The rows of these jumps show whether the
terminals are in the right rows, one row off, or ever further away from the ends of the trajectories.
"""

from __future__ import annotations

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import read
from flowpolicies.inspection.findings import (
    MOST_ENDS,
    SPLIT_EPISODES,
    Finding,
    Rows,
    Vectors,
    found,
    observation_pairs,
    sample_rows,
)
from flowpolicies.inspection.order import differ
from flowpolicies.inspection.regression import LEAST_ROWS, Ridge, clip, root_mean_square
from flowpolicies.tree import Array

LEAST_ENDS = 4
"""Number of ends below which nothing is concluded."""

CROSSED = 0.9
"""Share of the ends at which the next observation must be that of the next row, to conclude that all were made so."""

LARGE = 0.95
"""Quantile of the sizes of steps above which a step counts as large; nearly all resets are."""

ONE_PLACE = 0.5
"""Share of the examined rows that must have a large step, to conclude that the resets are there."""


def check_ends(dataset: TransitionDataset) -> list[Finding]:
    """Reports last rows whose next observation is the first observation of the next trajectory."""
    which = np.sort(sample_rows(0, dataset.num_episodes - 1, MOST_ENDS))
    ends, vectors = dataset.episode_ends[which], Vectors(dataset)
    if len(ends) < LEAST_ENDS or not vectors.width:
        return []
    crossed = _crossed(dataset, ends)
    if crossed.mean() < CROSSED:
        return []
    places = {"at": ends, "after": ends + 1, "before": ends - 1, "drift": ends + which + 1}
    jumps = _share_of_jumps(vectors, places)
    place = max(jumps, key=lambda name: jumps[name])
    if jumps[place] <= ONE_PLACE:
        advice = "This is right if the trajectories are pieces of longer ones."
        text = _crossing(int(crossed.sum()), len(ends))
        return [found(dataset, "trajectories", "info", text, advice, count=int(crossed.sum()))]
    evidence = f"for {jumps[place]:.0%} of the terminals, the jump to the next trajectory is"
    if place == "drift":
        return [drift_finding(dataset, f"{evidence} as many rows later as trajectories have ended")]
    if place == "at":
        return [_lost(dataset, ends[crossed], len(ends))]
    text = f"terminals are one row off: {evidence} in the row {place} the terminal"
    advice = "Set terminals to 1 on the last row of each trajectory, and give that row its true next observation."
    return [found(dataset, "trajectories", "fault", text, advice, rows=ends)]


def _share_of_jumps(vectors: Vectors, places: dict[str, Rows]) -> dict[str, float]:
    """For each group of rows, the share of its rows whose step is a large one; 0 for groups of few rows."""
    length = len(vectors.dataset)
    usual = sample_rows(0, length, MOST_ENDS)
    steps = vectors.steps(usual)
    scale = np.maximum(steps.std(axis=0), 1e-8)
    model = Ridge(vectors.inputs(usual), clip(steps / scale)) if length >= LEAST_ROWS else None

    def sizes(rows: Rows) -> Array:
        """Lengths of the steps, and their distances from what the dynamics of all rows predict, `[2, n]`."""
        steps = vectors.steps(rows) / scale
        errors = steps if model is None else steps - model.predict(vectors.inputs(rows))
        return np.stack([root_mean_square(steps), root_mean_square(errors)])

    large = np.quantile(sizes(usual), LARGE, axis=1)
    shares = {}
    for name, rows in places.items():
        inside = rows[(rows >= 0) & (rows < length)]
        enough = len(inside) >= LEAST_ENDS
        shares[name] = float(np.mean(large < sizes(inside).T, axis=0).max()) if enough else 0.0
    return shares


def _crossed(dataset: TransitionDataset, ends: Rows) -> Array:
    """Whether the next observation in the rows `ends` `[n]` is the observation of the next row, `[n]`."""
    equal = np.ones(len(ends), bool)
    for now, then in observation_pairs(dataset).values():
        equal &= ~differ(read(then, ends), read(now, ends + 1))
    return equal


def _crossing(count: int, of: int) -> str:
    """Beginning of a message about `count` of the examined ends."""
    return (
        "the next observation of a trajectory's last row is the first observation of the next trajectory, in "
        f"{count:,} of {of:,} cases"
    )


def _lost(dataset: TransitionDataset, rows: Rows, of: int) -> Finding:
    """A finding about lost last observations; a warning if all masks are 0 there, so that no target uses them."""
    used = rows[np.asarray(dataset.masks)[rows] != 0]
    text = f"{_crossing(len(rows), of)}: the true one was lost"
    advice = (
        "Store the observation that the last step returned: vector environments keep it in the info, as final_obs or "
        "terminal_observation. Or drop the last rows whose mask is 1, because their targets bootstrap from the next "
        "observation."
    )
    if len(used):
        return found(dataset, "trajectories", "fault", text, advice, rows=used)
    return found(dataset, "trajectories", "warning", f"{text}; all masks are 0 there", advice, rows=rows)


def drift_finding(dataset: TransitionDataset, evidence: str) -> Finding:
    """A finding about T+1 observations of each trajectory beside T actions; `evidence` ends the message."""
    ends = dataset.episode_ends
    return found(
        dataset,
        "alignment",
        "fault",
        f"actions and observations drift apart, by one more row in each trajectory: {evidence}",
        "T+1 observations of each episode were concatenated beside T actions, as d3rlpy 2.8's Minari loader does. "
        + SPLIT_EPISODES,
        rows=[int(ends[0]) + 1],
        count=len(dataset) - int(ends[0]) - 1,
    )
