"""Checks for steps inside trajectories that contradict the dynamics of all others, where an end may be missing."""

from __future__ import annotations

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.inspection.findings import Finding, Rows, Severity, Vectors, found
from flowpolicies.inspection.regression import (
    LEAST_ROWS,
    MOST_ROWS,
    STRETCH,
    Ridge,
    clip,
    deviations,
    root_mean_square,
)
from flowpolicies.tree import Array

JUMP = 2.0
"""Factor by which the prediction error of a jump exceeds the largest usual error.

In data of pendulum, pointmaze, cube, scene, hopper and cheetah, the errors at ends without a terminal were above 1.9
times the largest usual error, and those of rows inside trajectories below 1.7 times.
"""

LEAST_JUMP = 0.7
"""Smallest error of a jump: root mean square over the components, in standard deviations of a step."""

LARGEST_ERROR = 20.0
"""Standard deviations of a step to which the error of a component is clipped."""


def find_jumps(dataset: TransitionDataset, rows: Rows, budget: int, *, anywhere: bool = False) -> Rows:
    """Rows inside trajectories whose step contradicts the dynamics of all others and leads to where trajectories start.

    Args:
        dataset: the dataset to search.
        rows: rows for the regression that learns the dynamics.
        budget: number of rows to search.
        anywhere: also return rows whose step leads somewhere else; collisions are among them.
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
    for start in stretches(len(dataset), budget):
        block = np.arange(start, min(start + STRETCH, len(dataset)))
        arrived, (size, error) = vectors.next(block), sizes_and_errors(block)
        is_near = anywhere | ((arrived >= low) & (arrived <= high)).all(axis=1)
        # A step that a wall blocks contradicts the dynamics too, but it is a small one.
        out = (error > usual) & (size > np.median(sizes)) & is_near
        jumps.append(block[out & (np.asarray(dataset.terminals[block]) != 1)])
    return np.concatenate(jumps)


def stretches(length: int, budget: int) -> list[int]:
    """First rows of stretches of `STRETCH` rows, spread over the dataset, that have about `budget` rows together."""
    everywhere = np.arange(0, length, STRETCH)
    count = max(1, min(len(everywhere), budget // STRETCH))
    return [int(start) for start in everywhere[np.linspace(0, len(everywhere) - 1, count).round().astype(int)]]


def check_jumps(dataset: TransitionDataset, jumps: Rows, *, simulated: bool = False) -> list[Finding]:
    """Reports jumps.

    Args:
        dataset: the dataset.
        jumps: rows of `find_jumps`, ascending.
        simulated: whether the simulator was tried on these rows and makes none of the jumps.
    """
    if not len(jumps):
        return []
    lengths = dataset.episode_lengths
    episodes = np.searchsorted(dataset.episode_ends, jumps)
    others = np.setdiff1d(lengths, lengths[np.unique(episodes)])
    severity: Severity = "warning"
    message = f"jumps inside trajectories to states where trajectories start: {len(jumps):,}"
    if simulated:
        message, severity = f"jumps inside trajectories that the simulator does not make: {len(jumps):,}", "fault"
    elif len(others) == 1 and np.all((jumps - dataset.episode_starts[episodes] + 1) % others[0] == 0):
        # If all other trajectories have the same length, a jump after exactly that many steps is an end.
        message += f", each after {others[0]:,} steps, the length of all other trajectories: trajectories are joined"
        severity = "fault"
    advice = (
        "If a trajectory ends there, set terminals to 1, and drop that row or give it its true next observation. A "
        "teleport of the environment looks the same and is right."
    )
    return [found(dataset, "trajectories", severity, message, advice, rows=jumps)]
