"""What D4RL does to rewards and ends of episodes."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

RewardConvention = Literal["stored", "d4rl-antmaze"]
"""How rewards and masks are read.

stored: as they are. d4rl-antmaze: as papers train on D4RL's antmaze (flow_family 2.2): the reward is r - 1, and the
mask is 0 where the goal was reached, that is where r = 1. Minari's episodes go on there without a termination.
"""


def check_convention(convention: str) -> None:
    """Raises a ValueError for an unknown convention."""
    if convention not in get_args(RewardConvention):
        known = ", ".join(get_args(RewardConvention))
        raise ValueError(f"unknown reward convention '{convention}' (known: {known}).")


def apply_convention(
    convention: RewardConvention, rewards: Array, terminations: Array, name: str
) -> tuple[Array, Array]:
    """Rewards and terminations `[T]` under the convention.

    Raises:
        ValueError: if the rewards are not those that the convention is for.
    """
    if convention == "stored":
        return rewards, terminations
    if not np.isin(rewards, (0, 1)).all():
        raise ValueError(
            f"'{name}': reward_convention='d4rl-antmaze' is for rewards of 0 and 1, but these range from "
            f"{rewards.min():.6g} to {rewards.max():.6g}. Use reward_convention='stored'."
        )
    return rewards - 1, terminations | (rewards == 1)
