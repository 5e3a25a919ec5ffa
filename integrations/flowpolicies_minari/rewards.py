"""Conventions for the rewards and terminations of D4RL's antmaze datasets."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from flowpolicies.tree import Array

RewardConvention = Literal["stored", "d4rl-antmaze"]
"""How rewards and masks are made from the stored rewards and terminations.

stored: unchanged.

d4rl-antmaze: as in papers that train on D4RL's antmaze, such as IQL (arXiv 2110.06169, `make_env_and_dataset` in
train_offline.py of https://github.com/ikostrikov/implicit_q_learning). The reward is r - 1, and the mask is 0 where the
goal was reached, that is where r = 1. In Minari's version of the data, episodes continue there without a termination.
"""


def check_convention(convention: str) -> None:
    """Check that a reward convention exists.

    Raises:
        ValueError: if it does not.
    """
    if convention not in get_args(RewardConvention):
        known = ", ".join(get_args(RewardConvention))
        raise ValueError(f"unknown reward convention '{convention}' (known: {known}).")


def apply_convention(
    convention: RewardConvention, rewards: Array, terminations: Array, name: str
) -> tuple[Array, Array]:
    """Apply a convention to the stored rewards and terminations, both `[T]`.

    Args:
        convention: The reward convention.
        rewards: Stored rewards.
        terminations: Stored terminations.
        name: Name of the dataset, for error messages.

    Returns:
        Rewards and terminations under the convention.

    Raises:
        ValueError: if the convention does not apply to these rewards.
    """
    if convention == "stored":
        return rewards, terminations
    if not np.isin(rewards, (0, 1)).all():
        raise ValueError(
            f"'{name}': reward_convention='d4rl-antmaze' is for rewards of 0 and 1, but these range from "
            f"{rewards.min():.6g} to {rewards.max():.6g}. Use reward_convention='stored'."
        )
    return rewards - 1, terminations | (rewards == 1)
