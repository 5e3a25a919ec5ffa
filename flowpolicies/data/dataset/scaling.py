"""Scaling of observations: the center and the factor of each number, fitted to a dataset."""

from __future__ import annotations

from typing import Literal

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.spaces.layout import observation_layout
from flowpolicies.tree import leaf_at

Scaling = Literal["none", "standard", "min_max"]
"""standard: mean 0 and standard deviation 1; min_max: from -1 to 1; none: observations as they are."""
ROWS = 100_000
"""Rows that are read at once."""


def fit_scaling(dataset: TransitionDataset, scaling: Scaling, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """What each number of an observation is reduced by, and then multiplied by, as arrays `[C]` in float32.

    The C numbers are those of a flat observation that are neither pixels nor categories, in its order. A number that is
    the same in the whole dataset is only moved to 0.

    Args:
        dataset: the dataset whose observations are measured.
        scaling: standard (mean 0, standard deviation 1) or min_max (from -1 to 1).
        gain: factor of the scaled numbers.
    """
    centers, factors = [np.empty(0)], [np.empty(0)]
    for entry in observation_layout(dataset.observation_space):
        if entry.image or entry.categories:
            continue
        values = leaf_at(dataset.observations, entry.key)
        center, spread = _measured(values, scaling)
        centers.append(center)
        factors.append(gain / np.where(spread > 0, spread, 1.0))
    return np.concatenate(centers).astype(np.float32), np.concatenate(factors).astype(np.float32)


def _measured(values: np.ndarray, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """Center and spread of each column: mean and standard deviation, or the middle and half of the range.

    The values are read once, as they may lie in files that are larger than the memory.
    """
    count, mean, squares, low, high = 0, *(np.array(start) for start in (0.0, 0.0, np.inf, -np.inf))
    for start in range(0, len(values), ROWS):
        rows = np.asarray(values[start : start + ROWS], np.float64)
        block, n = rows.reshape(len(rows), -1), len(rows)
        low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
        # Mean and sum of squared deviations of what was read so far and the block together (Chan et al., 1979).
        block_mean = block.mean(0)
        step = block_mean - mean
        squares = squares + np.square(block - block_mean).sum(0) + np.square(step) * count * n / (count + n)
        mean, count = mean + step * n / (count + n), count + n
    if scaling == "min_max":
        return (low + high) / 2, (high - low) / 2
    return mean, np.where(high > low, np.sqrt(squares / count), 0.0)
