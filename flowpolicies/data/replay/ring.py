"""The online part of the replay buffer, with the methods and attributes of Stable-Baselines3's `ReplayBuffer`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer

from flowpolicies.data.replay.steps import (
    checked_actions,
    checked_ends,
    checked_numbers,
    checked_observations,
    infos_of_sb3,
    steps_of_sb3,
)
from flowpolicies.data.replay.store import Store
from flowpolicies.spaces.layout import flat_dtype, observation_dim, observation_layout, space_fits, unflatten
from flowpolicies.tree import Array, leaves, take


class OnlineRing(ReplayBuffer):
    """Abstract: a ring of the newest transitions that were collected online.

    `buffer_size`, `pos` and `full` count steps of each environment, as in Stable-Baselines3. `observations`,
    `next_observations`, `actions`, `rewards`, `dones` and `timeouts` are read-only arrays `[buffer_size, n_envs, ...]`:
    transitions are added by `add` or `extend`.

    Args:
        buffer_size: number of transitions of all environments together.
        observation_space: space of the observations.
        action_space: space of the actions, which are stored scaled to [-1, 1].
        device: device of the samples.
        n_envs: number of environments.
        handle_timeout_termination: whether values bootstrap after a time limit (`TimeLimit.truncated` of an info).
        window: number of steps that the ring has room for at least.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str,
        n_envs: int,
        *,
        handle_timeout_termination: bool,
        window: int,
    ) -> None:
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.requested_size, self.window = buffer_size, window
        self.buffer_size = self._steps_per_env()
        self.optimize_memory_usage, self.handle_timeout_termination = False, handle_timeout_termination
        self.keep_infos = False
        self.online: Store | None = None

    def _steps_per_env(self) -> int:
        return max(self.requested_size // self.n_envs, self.window, 1)

    def _ring(self) -> Store:
        if self.online is None:
            self.online = Store.empty(self.buffer_size, self.n_envs, self._widths())
        return self.online

    def _widths(self) -> dict[str, tuple[int, torch.dtype]]:
        """Width and type of the online columns; a width of 0 means one number per row."""
        observation = (observation_dim(self.observation_space), flat_dtype(self.observation_space))
        action = (math.prod(self.action_space.shape or ()), torch.float32)
        scalars = dict.fromkeys(("rewards", "masks", "terminals"), (0, torch.float32))
        return {"observations": observation, "next_observations": observation, "actions": action, **scalars}

    def add(
        self,
        obs: np.ndarray | dict[str, np.ndarray],
        next_obs: np.ndarray | dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: Sequence[Mapping[str, Any]],
    ) -> None:
        """Stores one step of every environment.

        A time limit ends the episode but not the return: values bootstrap after it.

        Args:
            obs: observations `[n_envs, *shape]`, or a dict of them. With one environment the first axis may be missing,
                also in the other arguments.
            next_obs: observations after the step; at the end of an episode its last observation.
            action: actions `[n_envs, *shape]` between -1 and 1.
            reward: rewards, `[n_envs]`.
            done: whether the episode ends with this step, `[n_envs]`.
            infos: one dict for each environment; `TimeLimit.truncated` tells time limits from terminations.

        Raises:
            ValueError: if a shape, a key or a type is not that of the spaces. Nothing is stored then.
        """
        n, space = self.n_envs, self.observation_space
        terminals, masks = checked_ends(done, infos, n, time_limits=self.handle_timeout_termination)
        step = {
            "observations": checked_observations("obs", space, obs, n),
            "next_observations": checked_observations("next_obs", space, next_obs, n),
            "actions": checked_actions(action, math.prod(self.action_space.shape or ()), n),
            "rewards": checked_numbers("reward", reward, n),
            "masks": masks,
            "terminals": terminals,
        }
        ring = self._ring()
        if self.keep_infos:
            ring.keep_infos(infos)
        ring.append(step)
        self.pos, self.full = ring.head, ring.size == ring.capacity

    def extend(self, *args: Any, **kwargs: Any) -> None:
        """Stores T steps of every environment: the arguments of `add`, each with a leading axis of steps.

        Raises:
            ValueError: if the numbers of steps differ.
        """
        names = ("obs", "next_obs", "action", "reward", "done", "infos")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if len(args) > len(names) or set(given) != set(names):
            raise TypeError(f"extend takes the arguments {', '.join(names)}, got {', '.join(given)}")
        lengths = {name: len(leaves(value)[0]) for name, value in given.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the arguments of extend must have equally many steps, got {lengths}")
        for t in range(lengths["obs"]):
            self.add(*(take(given[name], t) for name in names))

    def reset(self) -> None:
        """Deletes the online transitions. An attached dataset stays."""
        self.online, self.pos, self.full = None, 0, False

    def end_episodes(self) -> None:
        """Marks the newest steps as ends of episodes, so that no window crosses them.

        Call this if the environments are reset in the middle of an episode.
        """
        if self.online is not None:
            self.online.end_episodes()

    def set_n_envs(self, n_envs: int) -> None:
        """Sets the number of environments. If it changes, the online transitions are deleted."""
        if n_envs != self.n_envs:
            self.n_envs = n_envs
            self.buffer_size = self._steps_per_env()
            self.reset()

    def adopt(self, other: object) -> None:
        """Replaces the online transitions by those of another buffer.

        Everything else stays: dataset, options, generator. The ring keeps its size, unless the other buffer holds more
        steps.

        Args:
            other: a buffer of this class, or Stable-Baselines3's `ReplayBuffer` or a subclass of it.

        Raises:
            TypeError: if it is no such buffer.
            ValueError: if its spaces or its number of environments are others.
        """
        if not isinstance(other, ReplayBuffer):
            raise TypeError(
                "expected a replay buffer: a TransitionBuffer, or Stable-Baselines3's ReplayBuffer, DictReplayBuffer, "
                f"NStepReplayBuffer or HerReplayBuffer, got {type(other).__name__}"
            )
        for part in ("observation_space", "action_space"):
            mine, theirs = getattr(self, part), getattr(other, part)
            if not space_fits(mine, theirs):
                raise ValueError(f"the replay buffer's {part} is {theirs}, but the model's is {mine}")
        if isinstance(other, OnlineRing):
            layouts = [observation_layout(buffer.observation_space) for buffer in (self, other)]
            if layouts[0] != layouts[1]:
                raise ValueError(
                    f"the replay buffer stores observations as {[entry.key for entry in layouts[1]]}, but the model as "
                    f"{[entry.key for entry in layouts[0]]}: the keys of the Dict have another order. Build the model "
                    "with the space of the buffer."
                )
        if other.n_envs != self.n_envs:
            raise ValueError(
                f"the replay buffer holds steps of {other.n_envs} environments, but the model has {self.n_envs}. "
                f"Call set_env with {other.n_envs} environments first."
            )
        if isinstance(other, OnlineRing):
            steps = None if other.online is None else other.online.steps()
            infos = None if other.online is None else other.online.ordered_infos()
        else:
            steps, infos = steps_of_sb3(other), infos_of_sb3(other)
        if self.keep_infos and steps is not None and infos is None:
            raise ValueError(
                "online_goals with copy_info_dict=True need the info dicts of all steps, which the replay buffer does "
                "not hold. Set copy_info_dict=False, or start with an empty buffer."
            )
        self.reset()
        self.buffer_size = self._steps_per_env()
        if steps is not None:
            self.buffer_size = max(self.buffer_size, len(steps["terminals"]))
            head = other.pos if other.full and other.buffer_size == self.buffer_size else 0
            kept = infos if self.keep_infos else None
            ring = self.online = Store.filled(self.buffer_size, self.n_envs, self._widths(), steps, kept, head)
            self.pos, self.full = ring.head, ring.size == ring.capacity

    def _shown(self, values: Array, shape: tuple[int, ...] = ()) -> Array:
        """Rows of the ring as a read-only array `[buffer_size, n_envs, *shape]`."""
        shown = values.reshape(self.buffer_size, self.n_envs, *shape).view()
        shown.flags.writeable = False
        return shown

    def _observations_shown(self, name: str) -> Any:
        found, space = unflatten(self.observation_space, self._ring().columns[name]), self.observation_space
        if isinstance(found, dict):
            assert isinstance(space, spaces.Dict)
            shapes: Any = self.obs_shape
            return {
                key: self._shown(part.astype(space[key].dtype, copy=False), shapes[key]) for key, part in found.items()
            }
        return self._shown(found.astype(space.dtype, copy=False), self.obs_shape)

    @property
    def observations(self) -> Any:  # type: ignore[override]
        """The observations; a dict of arrays for a Dict space."""
        return self._observations_shown("observations")

    @property
    def next_observations(self) -> Any:  # type: ignore[override]
        """The observations after the steps; a dict of arrays for a Dict space."""
        return self._observations_shown("next_observations")

    @property
    def actions(self) -> np.ndarray:  # type: ignore[override]
        """The scaled actions, with one axis for all elements of an action."""
        return self._shown(self._ring().columns["actions"].numpy(), (self.action_dim,))

    @property
    def rewards(self) -> np.ndarray:  # type: ignore[override]
        """The rewards, before any normalisation."""
        return self._shown(self._ring().columns["rewards"].numpy())

    @property
    def dones(self) -> np.ndarray:  # type: ignore[override]
        """1 where an episode ended, for a termination or a time limit, otherwise 0."""
        return self._shown(self._ring().columns["terminals"].numpy())

    @property
    def timeouts(self) -> np.ndarray:  # type: ignore[override]
        """1 where an episode ended but values bootstrap, as after a time limit, otherwise 0."""
        columns = self._ring().columns
        return self._shown((columns["terminals"] * columns["masks"]).numpy())

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        raise NotImplementedError("batches come from sample(batch_size, env), which chooses the rows itself")
