"""Checks of what lies between trajectories: where s' of a last row is the first s of the next, do both belong together?

s' that was made of the next row's s crosses the ends of trajectories, where the true s' was lost: there a reset looks
like a step. Where those jumps stand tells whether terminals stand at the ends, beside them, or drift away from them.
"""

from __future__ import annotations

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import read
from flowpolicies.inspection.findings import Array, Finding, Rows, Vectors, draw, found, parts
from flowpolicies.inspection.order import differ
from flowpolicies.inspection.regression import root_mean_square

LEAST_ENDS = 4
MOST_ENDS = 20_000

CROSSED = 0.9
"""Share of the ends that s' must cross to say that it was made of the next row's s."""

LARGE = 0.95
"""Quantile of the sizes of steps from which on one is large; of resets nearly all are."""


def check_ends(dataset: TransitionDataset) -> list[Finding]:
    """s' of a last row is not the first s of the next trajectory, unless one trajectory was cut into pieces."""
    which = np.sort(draw(0, dataset.num_episodes - 1, MOST_ENDS))
    ends, vectors = dataset.episode_ends[which], Vectors(dataset)
    if len(ends) < LEAST_ENDS or not vectors.width:
        return []
    crossed = _crossed(dataset, ends)
    if crossed.mean() < CROSSED:
        return []
    usual = draw(0, len(dataset), MOST_ENDS)
    scale = np.maximum(vectors.steps(usual).std(axis=0), 1e-8)

    def sizes(rows: Rows) -> Array:
        return root_mean_square(vectors.steps(rows) / scale)

    large = np.quantile(sizes(usual), LARGE)
    jumps = {}
    for name, rows in {"at": ends, "after": ends + 1, "before": ends - 1, "drift": ends + which + 1}.items():
        inside = rows[(rows >= 0) & (rows < len(dataset))]
        jumps[name] = float(np.mean(sizes(inside) > large)) if len(inside) >= LEAST_ENDS else 0.0
    place = max(jumps, key=lambda name: jumps[name])
    if jumps[place] <= 0.5:
        text = f"s' of the last row is the first s of the next trajectory in {crossed.sum():,} of {len(ends):,}"
        advice = "Right if trajectories are pieces of longer ones."
        return [found(dataset, "trajectories", "info", text, advice, count=int(crossed.sum()))]
    evidence = f"s' is the next row's s everywhere, and {jumps[place]:.0%} of the jumps between trajectories stand"
    if place == "drift":
        return [drift_finding(dataset, f"{evidence} as many rows after a terminal as there are trajectories before it")]
    if place == "at":
        return [_lost(dataset, ends[crossed], len(ends))]
    text = f"terminals are one row off: {evidence} in the row {place} a terminal"
    advice = "Set terminals to 1 on the last row of each trajectory, and give that row its true next observation."
    return [found(dataset, "trajectories", "fault", text, advice, rows=ends)]


def _crossed(dataset: TransitionDataset, ends: Rows) -> Array:
    equal, after = np.ones(len(ends), bool), dict(parts(dataset.next_observations, ""))
    for name, now in parts(dataset.observations, ""):
        equal &= ~differ(read(after[name], ends), read(now, ends + 1))
    return equal


def _lost(dataset: TransitionDataset, rows: Rows, of: int) -> Finding:
    """Harmless only where the mask is 0: then nothing looks at s'."""
    used = rows[np.asarray(dataset.masks)[rows] != 0]
    text = f"s' of the last row is the first s of the next trajectory in {len(rows):,} of {of:,}: the true one was lost"
    advice = (
        "Store the observation that the last step returned: vector environments keep it in the info, as final_obs or "
        "terminal_observation. Or drop last rows whose mask is 1, as values bootstrap from s' there."
    )
    if len(used):
        return found(dataset, "trajectories", "fault", text, advice, rows=used)
    return found(dataset, "trajectories", "warning", f"{text}; all masks are 0 there", advice, rows=rows)


def drift_finding(dataset: TransitionDataset, evidence: str) -> Finding:
    """All T+1 observations beside T actions."""
    ends = dataset.episode_ends
    return found(
        dataset,
        "alignment",
        "fault",
        f"actions and observations drift apart, by one more row in each trajectory: {evidence}",
        "T+1 observations of an episode were concatenated beside T actions, as d3rlpy's Minari loader does. Cut every "
        "episode first: observations[:-1] and next_observations[1:], or TransitionDataset.from_episodes.",
        rows=[int(ends[0]) + 1],
        count=len(dataset) - int(ends[0]) - 1,
    )
