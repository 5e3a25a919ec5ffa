"""Facts about a dataset that are worth a look before training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium.spaces import Box

from flowpolicies.tree import Array


def facts_about(arrays: Mapping[str, Array], action_space: Box, episode_lengths: Array) -> dict[str, str]:
    """Numbers, ranges and shapes by title.

    Args:
        arrays: the arrays by name, as `TransitionDataset.arrays` returns them.
        action_space: the space of the actions; an action counts as at a bound within 0.1 % of half the range.
        episode_lengths: `[E]`, the number of transitions of each trajectory.
    """
    low, high = action_space.low, action_space.high
    at_bound = np.mean(np.abs(arrays["actions"] - (low + high) / 2) >= 0.999 * (high - low) / 2)
    facts = {
        "transitions": f"{len(arrays['actions']):,}",
        "episodes": f"{len(episode_lengths):,}",
        "episode length": _spread(episode_lengths),
        "reward": _spread(arrays["rewards"]),
        "mask is 0": f"in {np.mean(arrays['masks'] == 0):.3%} of transitions",
    }
    for key, array in arrays.items():
        if key.startswith(("observations", "actions")):
            facts[key] = f"shape {array.shape[1:]}, {array.dtype}"
    facts["actions"] += f", {at_bound:.3%} of components at a bound"
    return facts


def _spread(values: Array) -> str:
    return f"min {values.min():.6g}, mean {values.mean(dtype=np.float64):.6g}, max {values.max():.6g}"
