"""Stable-Baselines3's replay buffers as transitions, and back."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Box, Dict
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from flowpolicies.data.dataset.checks import DataFault
from flowpolicies.data.dataset.dataset import Observations, TransitionDataset
from flowpolicies.data.downloads.files import existing_file
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.spaces.layout import scale_actions

Array = npt.NDArray[Any]


def load_sb3(
    path: str | os.PathLike[str],
    *,
    trust: bool = False,
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> TransitionDataset:
    """The transitions of a file that `model.save_replay_buffer` wrote, see `from_sb3_buffer`.

    Args:
        path: the file.
        trust: read it although it is a pickle, which can run any program while it is read.
        name: what messages call this dataset; None: the file's name.
        provenance: more about where it came from, as JSON data.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if `trust` is off, or the file holds no replay buffer, or no transition.
    """
    path = existing_file(path, "a replay buffer (.pkl)")
    if not trust:
        raise ValueError(
            f"'{path}' is a pickle, and reading a pickle runs whatever its author put into it. If you wrote it "
            "yourself, or trust who did, pass trust=True (on the command line sb3:PATH,trust=true); then save it with "
            "to_npz (flowpolicies data convert), which needs no trust."
        )
    with open(path, "rb") as file:
        try:
            buffer = pickle.load(file)
        except Exception as error:  # What a damaged pickle raises is up to its bytes.
            raise ValueError(
                f"cannot read '{path}' as a pickled replay buffer: {error}. Write it with model.save_replay_buffer, "
                "and read it where the classes it refers to can be imported."
            ) from error
    name = path.stem if name is None else name
    return from_sb3_buffer(buffer, name=name, provenance={"file": path.name, **(provenance or {})})


def from_sb3_buffer(
    buffer: Any, *, name: str = "replay buffer", provenance: Mapping[str, Any] | None = None
) -> TransitionDataset:
    """The transitions of a replay buffer, the stream of each environment after that of the one before.

    Actions get back the units of the action space. An episode that was cut short by a time limit keeps its bootstrap,
    as when Stable-Baselines3 samples. Where a stream jumps without an end (the environment was reset because `learn`
    was called again) a trajectory ends too. With `optimize_memory_usage` the buffer knows no time limits and has lost
    the last observations of episodes: all ends count as terminations, whose next observation nothing reads.

    Raises:
        ValueError: if it is no replay buffer of a Box of actions, or holds no transition.
    """
    if isinstance(buffer, TransitionBuffer) or not isinstance(buffer, ReplayBuffer):
        raise ValueError(
            f"expected one of Stable-Baselines3's replay buffers, got {type(buffer).__name__}. "
            "flowpolicies' own are read by model.load_replay_buffer."
        )
    if not isinstance(buffer.action_space, Box):
        raise DataFault(f"replay buffer '{name}' holds actions of {buffer.action_space}; flow policies act in a Box.")
    order, following = _order(buffer)
    if len(order) == 0:
        raise DataFault(f"replay buffer '{name}' holds no transition.")

    def streams(array: Array, rows: npt.NDArray[np.intp] = order) -> Array:
        """`[size, n_envs, ...]` -> one environment after the other."""
        return np.concatenate(list(array[rows].swapaxes(0, 1)))

    later = buffer.observations if buffer.optimize_memory_usage else buffer.next_observations
    observations, next_observations = _map(streams, buffer.observations), _map(partial(streams, rows=following), later)
    dones = streams(buffer.dones) > 0
    # Buffers of Stable-Baselines3 before 2.1 may have no timeouts.
    timeouts = streams(buffer.timeouts) > 0 if hasattr(buffer, "timeouts") else np.zeros(len(dones), bool)
    jumps = _jumps(observations, next_observations, len(order)) & ~dones
    last = np.arange(len(dones)) % len(order) == len(order) - 1
    return TransitionDataset.from_arrays(
        observations,
        _unscale(buffer.action_space, streams(buffer.actions)),
        streams(buffer.rewards),
        next_observations,
        masks=~(dones & ~timeouts),
        terminals=dones | jumps | last,
        observation_space=buffer.observation_space,
        action_space=buffer.action_space,
        name=name,
        provenance={
            "source": "sb3",
            "n_envs": buffer.n_envs,
            "time_limits": "kept apart" if getattr(buffer, "handle_timeout_termination", False) else "as terminations",
            "ends_without_done": int(jumps.sum()),
            **(provenance or {}),
        },
    )


def to_sb3_buffer(
    dataset: TransitionDataset, *, device: torch.device | str = "auto", buffer_size: int | None = None
) -> ReplayBuffer:
    """A stock replay buffer that holds the dataset, for `model.replay_buffer` of any off-policy algorithm.

    Its `dones` are 1 where bootstrapping stops or a trajectory ends, its `timeouts` where a trajectory ends but
    bootstrapping goes on: what is sampled as done is 1 - mask.

    Args:
        dataset: with Box or Dict observations.
        device: where samples go.
        buffer_size: room for transitions, of which those beyond the dataset are free; None: as many as it has.

    Raises:
        ValueError: if it has more transitions than `buffer_size`.
    """
    size = len(dataset) if buffer_size is None else buffer_size
    if size < len(dataset):
        raise ValueError(f"buffer_size={size} is less than the {len(dataset)} transitions of '{dataset.name}'.")
    spaces = (dataset.observation_space, dataset.action_space)
    kind: type[ReplayBuffer] = DictReplayBuffer if isinstance(dataset.observation_space, Dict) else ReplayBuffer
    buffer = kind(size, *spaces, device=device)
    rows = slice(0, len(dataset))
    for own, theirs in (
        (dataset.observations, buffer.observations),
        (dataset.next_observations, buffer.next_observations),
    ):
        pairs = [(own[key], theirs[key]) for key in own] if isinstance(own, dict) else [(own, theirs)]
        for array, target in pairs:
            target[rows, 0] = array
    buffer.actions[rows, 0] = scale_actions(dataset.action_space, dataset.actions)
    buffer.rewards[rows, 0] = dataset.rewards
    buffer.dones[rows, 0] = np.maximum(dataset.terminals, 1 - dataset.masks)
    buffer.timeouts[rows, 0] = dataset.terminals * dataset.masks
    buffer.pos, buffer.full = len(dataset) % size, len(dataset) == size
    return buffer


def _order(buffer: ReplayBuffer) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows from the oldest to the newest, and where the next observation of each stands."""
    size = buffer.buffer_size
    order = np.arange(buffer.pos, buffer.pos + size) % size if buffer.full else np.arange(buffer.pos)
    if not buffer.optimize_memory_usage:
        return order, order
    # The observation of the oldest row of a full ring was overwritten by the next observation of the newest.
    order = order[1:] if buffer.full else order
    return order, (order + 1) % size


def _map(function: Callable[[Array], Array], observations: Any) -> Observations:
    if isinstance(observations, Mapping):
        return {key: function(part) for key, part in observations.items()}
    return function(observations)


def _jumps(observations: Observations, next_observations: Observations, length: int) -> npt.NDArray[np.bool_]:
    """Rows whose next observation is not the observation of the following row of the same stream."""
    if isinstance(observations, dict) and isinstance(next_observations, dict):
        parts = [_jumps(observations[key], next_observations[key], length) for key in observations]
        return np.asarray(np.stack(parts).any(0))
    before, after = np.asarray(next_observations), np.asarray(observations)
    jumps = np.append((before[:-1] != after[1:]).reshape(len(after) - 1, -1).any(1), False)
    jumps[length - 1 :: length] = False
    return jumps


def _unscale(space: Box, actions: Array) -> Array:
    """[-1, 1] -> the units of the space, `[N, *A]`; not through float32 sums, which would round small actions."""
    actions = actions.reshape(len(actions), *space.shape)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if np.all(low == -1) and np.all(high == 1):
        return actions
    return (low + (actions.astype(np.float64) + 1) / 2 * (high - low)).astype(np.float32)
