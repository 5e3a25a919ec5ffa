"""Steps for the replay buffer: checks of those that are added, and conversion of Stable-Baselines3's buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from torch import Tensor

from flowpolicies.data.replay.store import Columns
from flowpolicies.spaces.layout import Observations, flatten_arrays
from flowpolicies.tree import Array, leaves, take, tree_map

ACTION_LIMIT = 1 + 1e-4
"""Largest size of a scaled action that is added to the buffer, with some room for rounding."""


def checked_observations(name: str, space: spaces.Space[Any], given: Any, n_envs: int) -> Array:
    """Flat observations `[n_envs, O]`, which may share the memory of those that were given.

    Args:
        name: the name of the argument, for errors.
        space: the observation space.
        given: observations `[n_envs, *shape]`, or a mapping of them for a Dict space. With one environment the first
            axis may be missing.
        n_envs: number of environments.

    Raises:
        ValueError: if keys, shapes or types are not those of the space.
    """
    if not isinstance(space, spaces.Dict):
        if isinstance(given, Mapping):
            raise ValueError(f"{name} is a mapping with the keys {sorted(given)}, but the observation space is {space}")
        rows = _observation_rows(name, space, given, n_envs)
        # Numbers need no checks, and are most of what is stored, once per environment step.
        is_flat = isinstance(space, spaces.Box) and rows.dtype == np.float32
        return rows.reshape(n_envs, -1) if is_flat else flatten_arrays(space, rows).numpy()
    if not isinstance(given, Mapping):
        raise ValueError(f"{name} must be a mapping with the keys {sorted(space.spaces)}, got {type(given).__name__}")
    if set(given) != set(space.spaces):
        raise ValueError(f"{name} has the keys {sorted(given)}, but the observation space has {sorted(space.spaces)}")
    parts = {key: _observation_rows(f"{name}[{key!r}]", part, given[key], n_envs) for key, part in space.spaces.items()}
    return flatten_arrays(space, parts).numpy()


def _observation_rows(name: str, space: spaces.Space[Any], given: Any, n_envs: int) -> Array:
    """Observations `[n_envs, *shape]` of one space that is no Dict, of its type."""
    array, shape = np.asarray(given), space.shape or ()
    if array.shape == (n_envs, *shape) and array.dtype == space.dtype:
        return array
    return _converted_rows(name, space, array, n_envs)


def _converted_rows(name: str, space: spaces.Space[Any], array: Array, n_envs: int) -> Array:
    """Observations `[n_envs, *shape]` of the type of the space, from those of another shape or type."""
    shape = space.shape or ()
    one_number = shape == () and array.shape == (n_envs, 1)
    if array.shape != (n_envs, *shape) and not one_number and (n_envs > 1 or array.shape != shape):
        raise ValueError(
            f"{name} has the shape {array.shape}, but {n_envs} environments with observations of shape {shape} need "
            f"{(n_envs, *shape)}"
        )
    array, dtype = array.reshape(n_envs, *shape), np.dtype(space.dtype or np.float32)
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold numbers of type {dtype}, got {array.dtype}")
    if dtype.kind == "f":
        return array.astype(dtype)
    if array.dtype.kind == "f" and len(shape) == 3:
        raise ValueError(
            f"{name} holds images of type {array.dtype}, but the observation space has {dtype} from 0 to 255. Scale "
            f"them to that range and convert them by astype(np.{dtype})."
        )
    with np.errstate(invalid="ignore"):
        cast = array.astype(dtype)
    if (cast != array).any():
        raise ValueError(f"{name} holds numbers that {dtype}, the type of the observation space, cannot hold")
    return cast


def checked_actions(given: Any, dim: int, n_envs: int) -> npt.NDArray[np.float32]:
    """Scaled actions `[n_envs, dim]`.

    Args:
        given: actions with as many elements, whose first axis is that of the environments if there are several.
        dim: number of elements of an action.
        n_envs: number of environments.

    Raises:
        ValueError: if the shape is another one, or an action is not between -1 and 1.
    """
    array = np.asarray(given, np.float32)
    if array.size != n_envs * dim or (n_envs > 1 and array.shape[0] != n_envs):
        raise ValueError(
            f"action has the shape {array.shape}, but {n_envs} environments with actions of {dim} elements need "
            f"{(n_envs, dim)}"
        )
    if not np.abs(array).max() <= ACTION_LIMIT:
        raise ValueError(
            f"action must be between -1 and 1, got numbers from {array.min():.4g} to {array.max():.4g}. The buffer "
            "holds scaled actions, as in Stable-Baselines3: add model.policy.scale_action(action)."
        )
    return array.reshape(n_envs, dim)


def checked_numbers(name: str, given: Any, n_envs: int) -> npt.NDArray[np.float32]:
    """One number per environment, `[n_envs]`; with one environment also a single number.

    Raises:
        ValueError: if the shape is another one.
    """
    array = np.asarray(given, np.float32)
    if array.shape not in ((n_envs,), (n_envs, 1)) and (n_envs > 1 or array.shape != ()):
        raise ValueError(f"{name} has the shape {array.shape}, but {n_envs} environments need ({n_envs},)")
    return array.reshape(n_envs)


def checked_ends(
    done: Any, infos: Sequence[Mapping[str, Any]], n_envs: int, *, time_limits: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Whether episodes end, and whether values may bootstrap after the step, `[n_envs]` each, 1 or 0.

    Args:
        done: whether the episodes end, for a termination or a time limit.
        infos: one dict per environment; `TimeLimit.truncated` tells time limits from terminations.
        n_envs: number of environments.
        time_limits: whether time limits are told from terminations.

    Raises:
        ValueError: if a shape is wrong, or `done` is not 0 or 1.
    """
    ends = checked_numbers("done", done, n_envs)
    flags = ends.tolist()
    if not {0.0, 1.0}.issuperset(flags):
        raise ValueError(f"done must be 0 or 1 (False or True) for each environment, got {ends}")
    if isinstance(infos, Mapping) or len(infos) != n_envs:
        given = "one dict" if isinstance(infos, Mapping) else f"{len(infos)} elements"
        raise ValueError(f"infos must be a list of {n_envs} dicts, one for each environment, got {given}")
    limited = [time_limits and info.get("TimeLimit.truncated", False) for info in infos]
    return ends, np.array([not end or bool(limit) for end, limit in zip(flags, limited, strict=True)], np.float32)


def steps_of_sb3(buffer: ReplayBuffer) -> Columns:
    """The steps `[T, n_envs, ...]` in a buffer of Stable-Baselines3, oldest step first.

    An episode also ends where the observations jump without the end of an episode, which happens when the environment
    is reset by another call of `learn`.

    Args:
        buffer: a ReplayBuffer or one of its subclasses, such as DictReplayBuffer, NStepReplayBuffer, HerReplayBuffer.
    """
    order, following = stored_order(buffer)
    compact = bool(buffer.optimize_memory_usage)
    later = buffer.observations if compact else buffer.next_observations
    observations, next_observations = take(buffer.observations, order), take(later, following)
    ends = buffer.dones[order] > 0
    # Without the observations after ends, and in buffers before version 2.1, all ends count as terminations.
    limited = buffer.timeouts[order] > 0 if hasattr(buffer, "timeouts") and not compact else np.zeros_like(ends)
    jumps = np.zeros_like(ends)
    if len(order) > 1 and not compact:
        differ = tree_map(lambda now, then: _differ(then[:-1], now[1:]), observations, next_observations)
        jumps[:-1] = np.any(leaves(differ), axis=0)

    def flat(value: Observations) -> Tensor:
        merged = tree_map(lambda part: part.reshape(-1, *part.shape[2:]), value)
        return flatten_arrays(buffer.observation_space, merged).view(len(order), buffer.n_envs, -1)

    return {
        "observations": flat(observations),
        "next_observations": flat(next_observations),
        "actions": torch.from_numpy(buffer.actions[order].astype(np.float32)),
        "rewards": torch.from_numpy(buffer.rewards[order].astype(np.float32)),
        "masks": torch.from_numpy(1 - (ends & ~limited).astype(np.float32)),
        "terminals": torch.from_numpy((ends | jumps).astype(np.float32)),
    }


def infos_of_sb3(buffer: ReplayBuffer) -> list[Mapping[str, Any]] | None:
    """The info dicts of the steps in a HerReplayBuffer that stores them, oldest first; None for other buffers."""
    if not getattr(buffer, "copy_info_dict", False):
        return None
    return list(np.asarray(vars(buffer)["infos"])[stored_order(buffer)[0]].flatten())


def _differ(first: Array, second: Array) -> npt.NDArray[np.bool_]:
    """Whether rows `[T, n_envs, *shape]` of two arrays differ, `[T, n_envs]`."""
    differ = np.asarray(first != second)
    return np.asarray(differ.any(axis=tuple(range(2, differ.ndim))))


def stored_order(buffer: ReplayBuffer) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The rows of a buffer from the oldest to the newest, and the rows of their next observations."""
    size = buffer.buffer_size
    order = np.arange(buffer.pos, buffer.pos + size) % size if buffer.full else np.arange(buffer.pos)
    if not buffer.optimize_memory_usage:
        return order, order
    # The observation of the oldest row of a full ring was overwritten by the next observation of the newest.
    order = order[1:] if buffer.full else order
    return order, (order + 1) % size
