"""Checks for trajectories that are copies of others, exactly or up to small changes, or pieces of others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import blocks, read
from flowpolicies.inspection.findings import (
    Finding,
    Rows,
    Track,
    Vectors,
    found,
    listed,
    not_judged,
    quantities,
    sample_rows,
)
from flowpolicies.tree import Array

CELL = 3e-3
"""Width of the cells of a projection, in its standard deviations: rows in the same cells may be copies."""

PROJECTIONS = 4
"""Number of random projections of observations and actions."""

LEAST_STEPS = 8
"""Number of steps below which a trajectory is not compared."""

MATCHED = 0.6
"""Share of a trajectory's rows that must be found in another one, at the same distance from each other."""

MOST_ROWS = 2_000_000
"""Largest number of rows that are compared; of more, whole cells are left out."""


class _Match(NamedTuple):
    """A trajectory that is found in an earlier one."""

    copy: int
    """Number of the trajectory."""
    original: int
    """Number of the earlier trajectory."""


def check_near_copies(dataset: TransitionDataset, known: Rows, track: Track) -> list[Finding]:
    """Reports trajectories of which most rows are nearly those of another one, in the same order.

    Args:
        dataset: the dataset to check.
        known: trajectories that are exact copies, which are reported already.
        track: may show the progress.
    """
    vectors = Vectors(dataset)
    if not vectors.width:
        return [not_judged("duplicates", "near copies: observations are images or categories only")]
    if dataset.num_episodes < 2:
        return []
    cells = _cells(dataset, vectors, track)
    if cells is None:
        return []
    matches = [match for match in _matches(dataset, cells) if match.copy not in known]
    if not matches:
        return []
    pairs = [f"{match.copy} of {match.original}" for match in matches]
    text = f"trajectories that are copies of another one or of a piece of it, up to small changes: {len(matches):,} "
    advice = "Drop the copies: they count twice in training, and a validation split may contain training data."
    rows = dataset.episode_starts[[match.copy for match in matches]]
    return [found(dataset, "duplicates", "fault", f"{text}({listed(pairs, 5)})", advice, rows=rows)]


def _cells(dataset: TransitionDataset, vectors: Vectors, track: Track) -> Array | None:
    """Number of the cell of each row, `[N]`; None if too few components are continuous."""
    sample = np.sort(sample_rows(0, len(dataset), 5000))
    inputs = vectors.inputs(sample)
    inputs = np.where(np.isfinite(inputs), inputs, 0)
    low, high = np.quantile(inputs, (0.02, 0.98), axis=0)
    scale = np.where(high > low, np.clip(inputs, low, high).std(axis=0), np.inf)
    weights = np.random.default_rng(0).normal(size=(len(scale), PROJECTIONS)) / scale[:, None]
    weights /= np.maximum(np.std(inputs @ weights, axis=0), 1e-12) * CELL
    if np.sum(np.isfinite(scale)) < 2:
        return None
    factors = np.random.default_rng(1).integers(1, 2**62, PROJECTIONS, np.int64) | 1
    parts = []
    for block in track(blocks([*quantities(dataset.observations), dataset.actions]), "duplicates: near copies"):
        values = _inputs(dataset, block)
        with np.errstate(invalid="ignore", over="ignore"):
            projected = np.floor(values @ weights.astype(np.float32))
            projected = np.clip(np.nan_to_num(projected), -(2.0**30), 2.0**30)
            parts.append((projected.astype(np.int64) * factors).sum(axis=1))
    return np.concatenate(parts)


def _inputs(dataset: TransitionDataset, block: slice) -> Array:
    arrays = [*quantities(dataset.observations), dataset.actions]
    parts = [read(array, block).reshape(block.stop - block.start, -1) for array in arrays]
    return np.concatenate(parts, axis=1)


def _matches(dataset: TransitionDataset, cells: Array) -> list[_Match]:
    """Trajectories of which most rows are in the cells of rows of an earlier one, at the same distance."""
    rows = np.arange(len(cells))
    if len(cells) > MOST_ROWS:
        rows = np.flatnonzero(cells % int(np.ceil(len(cells) / MOST_ROWS)) == 0)
    order = rows[np.argsort(cells[rows], kind="stable")]
    same = np.flatnonzero(cells[order[1:]] == cells[order[:-1]])
    first, second = order[same], order[same + 1]
    original, copy = (np.searchsorted(dataset.episode_ends, part) for part in (first, second))
    apart = original != copy
    if not apart.any():
        return []
    triples = np.stack([copy, original, second - first])[:, apart]
    keys, counts = np.unique(triples, axis=1, return_counts=True)
    compared = np.bincount(np.searchsorted(dataset.episode_ends, rows), minlength=dataset.num_episodes)
    matches: dict[int, _Match] = {}
    for (later, earlier, _), count in zip(keys.T.tolist(), counts.tolist(), strict=True):
        short = earlier if dataset.episode_lengths[earlier] < dataset.episode_lengths[later] else later
        if dataset.episode_lengths[short] >= LEAST_STEPS and count >= MATCHED * compared[short] and count >= 3:
            other = later if short == earlier else earlier
            matches.setdefault(int(short), _Match(int(short), int(other)))
    return [matches[copy] for copy in sorted(matches)]
