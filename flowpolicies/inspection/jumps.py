"""Steps inside trajectories that go against the dynamics of all others, where an end may have been lost."""

from __future__ import annotations

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.inspection.findings import Array, Finding, Rows, Severity, Vectors, found
from flowpolicies.inspection.regression import (
    LEAST_ROWS,
    MOST_ROWS,
    STRETCH,
    Ridge,
    clip,
    deviations,
    root_mean_square,
)

JUMP = 2.0
"""How many times the largest usual error a jump exceeds. Ends that were left out were above 1.9 times in pendulum,
pointmaze, cube, scene, hopper and cheetah; rows inside trajectories stayed below 1.7 times."""

LEAST_JUMP = 0.7
"""And its least size, as a root mean square over components in standard deviations of a step."""

LARGEST_ERROR = 20.0
"""Standard deviations of a step beyond which the error of a component counts no more."""


def find_jumps(dataset: TransitionDataset, rows: Rows, budget: int, *, anywhere: bool = False) -> Rows:
    """Steps inside trajectories that go against the dynamics of all others, and lead where trajectories start.

    Args:
        dataset: what to search.
        rows: to learn the dynamics from.
        budget: number of rows to search.
        anywhere: give those that lead elsewhere as well; collisions are among them.
    """
    vectors = Vectors(dataset)
    if len(rows) < LEAST_ROWS or not vectors.width:
        return np.zeros(0, np.intp)
    scale = deviations(vectors.steps(rows))
    seen, unseen = rows[::2], rows[1::2]
    model = Ridge(vectors.inputs(seen), clip(vectors.steps(seen) / scale))

    def sizes_and_errors(where: Rows) -> tuple[Array, Array]:
        steps = vectors.steps(where) / scale
        errors = np.abs(steps - model.predict(vectors.inputs(where)))
        return root_mean_square(steps), root_mean_square(np.minimum(errors, LARGEST_ERROR))

    sizes, errors = sizes_and_errors(unseen)
    usual = max(JUMP * float(np.quantile(errors, 1 - max(0.001, 3 / len(unseen)))), LEAST_JUMP)
    starts = vectors.now(dataset.episode_starts[:MOST_ROWS])
    margin = 0.5 * (starts.max(axis=0) - starts.min(axis=0)) + 1e-6
    low, high = starts.min(axis=0) - margin, starts.max(axis=0) + margin
    jumps = []
    for start in _stretches(len(dataset), budget):
        block = np.arange(start, min(start + STRETCH, len(dataset)))
        arrived, (size, error) = vectors.next(block), sizes_and_errors(block)
        is_near = anywhere | ((arrived >= low) & (arrived <= high)).all(axis=1)
        out = (error > usual) & (size > np.median(sizes)) & is_near  # What a wall blocks moves little.
        jumps.append(block[out & (np.asarray(dataset.terminals[block]) != 1)])
    return np.concatenate(jumps)


def _stretches(length: int, budget: int) -> list[int]:
    """First rows of stretches that are spread over all rows and together about `budget` of them."""
    everywhere = np.arange(0, length, STRETCH)
    count = max(1, min(len(everywhere), budget // STRETCH))
    return [int(start) for start in everywhere[np.linspace(0, len(everywhere) - 1, count).round().astype(int)]]


def check_jumps(dataset: TransitionDataset, jumps: Rows, *, simulated: bool = False) -> list[Finding]:
    """No step inside a trajectory jumps, see `find_jumps`; `simulated`: the simulator made none of these."""
    if not len(jumps):
        return []
    lengths = dataset.episode_lengths
    episodes = np.searchsorted(dataset.episode_ends, jumps)
    others = np.setdiff1d(lengths, lengths[np.unique(episodes)])
    severity: Severity = "warning"
    message = f"jumps inside trajectories, to where trajectories start: {len(jumps):,}"
    if simulated:
        message, severity = f"jumps inside trajectories that the simulator does not make: {len(jumps):,}", "fault"
    elif len(others) == 1 and np.all((jumps - dataset.episode_starts[episodes] + 1) % others[0] == 0):
        # Where all other trajectories have one length, a jump after exactly that many steps is an end.
        message += f", each after {others[0]:,} steps, as long as all others are: trajectories are joined"
        severity = "fault"
    advice = (
        "If a trajectory ends there, set terminals to 1 and drop that row or give it its true next observation; "
        "teleports look the same."
    )
    return [found(dataset, "trajectories", severity, message, advice, rows=jumps)]
