"""Scaling of observations and of rewards by what a dataset measures."""

from __future__ import annotations

from typing import Literal

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.spaces.layout import observation_layout
from flowpolicies.tree import leaf_at

Scaling = Literal["none", "standard", "min_max"]
"""standard: mean 0 and standard deviation 1; min_max: from -1 to 1; none: observations as they are."""
RewardScaling = Literal["none", "standard", "max_abs", "return_range"]
"""What rewards are divided by. standard: their standard deviation; max_abs: the largest absolute reward; return_range:
the difference between the largest and the smallest return of an episode; none: nothing."""
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


def fit_reward_factor(dataset: TransitionDataset, scaling: RewardScaling, gain: float = 1.0) -> float:
    """The positive number that rewards are multiplied by.

    Nothing is added to rewards, as that changes which policy is best where episodes have different lengths.

    Args:
        dataset: the dataset whose rewards are measured.
        scaling: what they are divided by.
        gain: factor of the scaled rewards.

    Raises:
        ValueError: if they would be divided by zero.
    """
    if scaling == "none":
        return gain
    if scaling == "return_range":
        returns = np.add.reduceat(np.asarray(dataset.rewards, np.float64), dataset.episode_starts)
        size, fault = float(np.ptp(returns)), "all episodes have the same return"
    elif scaling == "max_abs":
        middle, half = (float(number[0]) for number in _measured(dataset.rewards, "min_max"))
        size, fault = abs(middle) + half, "all rewards are 0"
    else:
        size, fault = float(_measured(dataset.rewards, "standard")[1][0]), "all rewards are equal"
    if not size > 0:
        raise ValueError(
            f"reward_scaling={scaling!r} would divide by zero on dataset '{dataset.name}': {fault}. Pass another "
            "reward_scaling, or reward_scaling='none' with the factor as reward_gain."
        )
    return gain / size


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
