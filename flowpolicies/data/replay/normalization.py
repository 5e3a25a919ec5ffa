"""Statistics of a dataset for Stable-Baselines3's VecNormalize."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Space
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from flowpolicies.data.replay.goals import Hindsight
from flowpolicies.data.replay.store import Store
from flowpolicies.spaces.layout import unflatten
from flowpolicies.tree import Array, named_leaves

UNUSED = 0.01
"""Largest count of statistics that have seen no step; VecNormalize begins with a count of 0.0001."""
BLOCK = 65_536
"""Number of rows that are read at once."""


def start_statistics(env: VecNormalize, store: Store, space: Space[Any], hindsight: Hindsight | None) -> None:
    """Lets a VecNormalize that has seen no step start from a dataset, as if it had seen the dataset's steps.

    The mean and variance of observations become those of the dataset's observations, and the variance of the discounted
    return, by which rewards are divided, that of the dataset's rewards with VecNormalize's own gamma. Steps that are
    collected later update them. Statistics that have seen steps already (of an environment that was trained in, or of a
    VecNormalize that was loaded) are kept, and so are all of them if `env.training` is False.

    Args:
        env: the VecNormalize.
        store: the dataset's transitions.
        space: the observation space.
        hindsight: the source of the dataset's goals, if these are drawn; rewards are then 0 or -1 depending on the
            goal, and count as -1 here.

    Raises:
        ValueError: if the statistics are of another shape than the dataset's observations.
    """
    if not env.training:
        return
    if env.norm_obs:
        found: RunningMeanStd | Mapping[str, RunningMeanStd] = env.obs_rms
        statistics = named_leaves("observations", found)
        if all(each.count < UNUSED for each in statistics.values()):
            _start_observations(statistics, store, space, hindsight)
    if env.norm_reward and env.ret_rms.count < UNUSED:
        rewards = store.columns["rewards"].double() if hindsight is None else -torch.ones(store.size).double()
        returns = running_returns(rewards.numpy(), store.columns["terminals"].numpy() > 0, env.gamma)
        env.ret_rms.update_from_moments(returns.mean(), returns.var(), len(returns))


def _start_observations(
    statistics: dict[str, RunningMeanStd], store: Store, space: Space[Any], hindsight: Hindsight | None
) -> None:
    for begin in range(0, store.size, BLOCK):
        rows = torch.arange(begin, min(begin + BLOCK, store.size))
        flat = store.take("observations", rows)
        if hindsight is not None:
            flat = hindsight.place(store, flat, rows)
        parts: dict[str, Array] = named_leaves("observations", unflatten(space, flat))
        for name, each in statistics.items():
            if each.mean.shape != parts[name].shape[1:]:
                raise ValueError(
                    f"VecNormalize normalises {name} of shape {each.mean.shape}, but the dataset's have the shape "
                    f"{parts[name].shape[1:]}. Make VecNormalize the outermost wrapper."
                )
            each.update(parts[name].astype(np.float64))


def running_returns(rewards: Array, ends: Array, gamma: float) -> Array:
    """VecNormalize's returns `[N]`, which look backwards: R_t = gamma R_{t-1} + r_t, from 0 at the start of an episode.

    Args:
        rewards: `[N]`.
        ends: whether a row is the last one of its episode, `[N]` bool.
        gamma: discount per step.
    """
    returns = np.array(rewards, np.float64)
    lasts = np.flatnonzero(ends)
    lasts = lasts if len(lasts) and lasts[-1] == len(ends) - 1 else np.append(lasts, len(ends) - 1)
    firsts = np.append(0, lasts[:-1] + 1)
    order = np.argsort(firsts - lasts, kind="stable")  # The longest episode comes first.
    firsts, lengths = firsts[order], (lasts - firsts + 1)[order]
    for step in range(1, int(lengths[0])):
        rows = firsts[: int(np.searchsorted(-lengths, -step, "left"))] + step
        returns[rows] += gamma * returns[rows - 1]
    return returns
