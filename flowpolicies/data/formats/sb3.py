"""Conversion of Stable-Baselines3's replay buffers to datasets, and of datasets to such buffers."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Box, Dict
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from flowpolicies.artifacts import ArtifactError
from flowpolicies.choices import require_device
from flowpolicies.data.dataset.checks import DataFault, reading_data
from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.downloads.files import existing_file
from flowpolicies.data.names import FILES
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.data.replay.steps import stored_order
from flowpolicies.data.switches import as_switch
from flowpolicies.spaces.layout import Observations, scale_actions
from flowpolicies.tree import Array, leaves, take, tree_map


def load_sb3(
    path: str | os.PathLike[str],
    *,
    trust: bool = False,
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> TransitionDataset:
    """The transitions in a file that `model.save_replay_buffer` wrote, see `from_sb3_buffer`.

    Args:
        path: the file.
        trust: whether to read the file although it is a pickle, which can run any code while it is read.
        name: the name of the dataset, for messages and summaries; None: the name of the file.
        provenance: further facts about the origin of the data, as JSON data.

    Raises:
        FileNotFoundError: if the file does not exist.
        ArtifactError: if `trust` is off, or the file does not hold a replay buffer with at least one transition.
        ValueError: if `trust` is neither true nor false.
    """
    trust = as_switch("trust", trust)
    path = existing_file(path, FILES["sb3"])
    if not trust:
        raise ArtifactError(
            path,
            "it is a pickle, and reading a pickle runs whatever its author put into it",
            hint="If you wrote it yourself, or trust its author, pass trust=True (on the command line "
            "sb3:PATH,trust=true); then save the dataset as .npz (dataset.save, or flowpolicies data convert), which "
            "needs no trust.",
        )
    with open(path, "rb") as file:
        try:
            buffer = pickle.load(file)
        except Exception as error:  # A damaged pickle can raise an exception of any type.
            raise ArtifactError(
                path,
                f"cannot read it as a pickled replay buffer: {error}",
                hint="Write it with model.save_replay_buffer, and read it where the classes it refers to can be "
                "imported.",
            ) from error
    name = path.stem if name is None else name
    if not isinstance(buffer, ReplayBuffer) or isinstance(buffer, TransitionBuffer):
        raise ArtifactError(path, _expected(buffer))
    with reading_data(path):
        return from_sb3_buffer(buffer, name=name, provenance={"file": path.name, **(provenance or {})})


def from_sb3_buffer(
    buffer: Any, *, name: str = "replay buffer", provenance: Mapping[str, Any] | None = None
) -> TransitionDataset:
    """The transitions in a replay buffer: those of the first environment, then those of the second, and so on.

    Actions are converted back to the units of the action space. Learners bootstrap where a time limit ended an
    episode, as Stable-Baselines3 does. A trajectory also ends where the observations jump without the end of an
    episode, which happens when the environment is reset by another call of `learn`. With `optimize_memory_usage` the
    buffer does not store time limits and the last observations of episodes; all ends then count as terminations, so
    that the missing observations are not used.

    Args:
        buffer: a replay buffer of Stable-Baselines3.
        name: the name of the dataset, for messages and summaries.
        provenance: further facts about the origin of the data, as JSON data.

    Raises:
        ValueError: if it is not such a buffer, its action space is not a Box, or it does not hold a transition.
    """
    if isinstance(buffer, TransitionBuffer) or not isinstance(buffer, ReplayBuffer):
        raise ValueError(_expected(buffer))
    if not isinstance(buffer.action_space, Box):
        raise DataFault(f"replay buffer '{name}' holds actions of {buffer.action_space}; flow policies need a Box.")
    order, following = stored_order(buffer)
    if len(order) == 0:
        raise DataFault(f"replay buffer '{name}' holds no transition.")

    later = buffer.observations if buffer.optimize_memory_usage else buffer.next_observations
    observations = tree_map(_by_environment, take(buffer.observations, order))
    next_observations = tree_map(_by_environment, take(later, following))
    dones = _by_environment(buffer.dones[order]) > 0
    # Buffers of Stable-Baselines3 before 2.1 may have no timeouts.
    timeouts = _by_environment(buffer.timeouts[order]) > 0 if hasattr(buffer, "timeouts") else np.zeros_like(dones)
    jumps = _jumps(observations, next_observations, len(order)) & ~dones
    last = np.arange(len(dones)) % len(order) == len(order) - 1
    return TransitionDataset.from_arrays(
        observations,
        _unscale(buffer.action_space, _by_environment(buffer.actions[order])),
        _by_environment(buffer.rewards[order]),
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
            **_dropped(buffer, name, len(dones)),
            **(provenance or {}),
        },
    )


def _expected(buffer: object) -> str:
    return (
        f"expected one of Stable-Baselines3's replay buffers, got {type(buffer).__name__}. "
        "Read a buffer of flowpolicies by model.load_replay_buffer."
    )


def _dropped(buffer: ReplayBuffer, name: str, rows: int) -> dict[str, int]:
    """The number of transitions of a buffer that are not among the `rows` of its dataset; {} if there are none."""
    held = (buffer.buffer_size if buffer.full else buffer.pos) * buffer.n_envs
    if held == rows:
        return {}
    warnings.warn(
        f"replay buffer '{name}': the oldest step of each environment was dropped ({held - rows} of {held} rows), "
        "because optimize_memory_usage overwrites its observation.",
        stacklevel=3,
    )
    return {"dropped_rows": held - rows}


def to_sb3_buffer(
    dataset: TransitionDataset, *, device: torch.device | str = "auto", buffer_size: int | None = None
) -> ReplayBuffer:
    """A replay buffer of Stable-Baselines3 with the transitions of a dataset, for any of its off-policy algorithms.

    Assign it to `model.replay_buffer`. Its `dones` are 1 where bootstrapping stops or a trajectory ends. Its `timeouts`
    are 1 where a trajectory ends although bootstrapping continues. The buffer therefore samples 1 - mask as done.

    Args:
        dataset: the dataset.
        device: the device of the samples.
        buffer_size: number of transitions that the buffer has room for; None: those of the dataset.

    Raises:
        ValueError: if the dataset has more transitions than `buffer_size`, or this machine lacks the device.
    """
    size = len(dataset) if buffer_size is None else buffer_size
    if size < len(dataset):
        raise ValueError(f"buffer_size={size} is less than the {len(dataset)} transitions of '{dataset.name}'.")
    spaces = (dataset.observation_space, dataset.action_space)
    kind: type[ReplayBuffer] = DictReplayBuffer if isinstance(dataset.observation_space, Dict) else ReplayBuffer
    buffer = kind(size, *spaces, device=require_device(device))
    rows = slice(0, len(dataset))
    for key in ("observations", "next_observations"):
        pairs = tree_map(lambda array, target: (array, target), getattr(dataset, key), getattr(buffer, key))
        for array, target in leaves(pairs):
            target[rows, 0] = array
    buffer.actions[rows, 0] = scale_actions(dataset.action_space, dataset.actions)
    buffer.rewards[rows, 0] = dataset.rewards
    buffer.dones[rows, 0] = np.maximum(dataset.terminals, 1 - dataset.masks)
    buffer.timeouts[rows, 0] = dataset.terminals * dataset.masks
    buffer.pos, buffer.full = len(dataset) % size, len(dataset) == size
    return buffer


def _by_environment(array: Array) -> Array:
    """Rows `[T * n_envs, ...]` of an array `[T, n_envs, ...]`: those of the first environment come first."""
    return np.concatenate(list(array.swapaxes(0, 1)))


def _jumps(observations: Observations, next_observations: Observations, length: int) -> npt.NDArray[np.bool_]:
    """Whether the next observation of a row differs from the observation of the following row, `[T * n_envs]`.

    Args:
        observations: rows as `_by_environment` returns them.
        next_observations: rows as `_by_environment` returns them.
        length: number of rows T of each environment, whose last row never counts.
    """
    differ = tree_map(lambda now, following: _rows_differ(following[:-1], now[1:]), observations, next_observations)
    jumps = np.append(np.any(leaves(differ), axis=0), False)
    jumps[length - 1 :: length] = False
    return jumps


def _rows_differ(first: Array, second: Array) -> Array:
    differ: Array = first != second
    return np.asarray(differ.any(axis=tuple(range(1, differ.ndim))))


def _unscale(space: Box, actions: Array) -> Array:
    """Actions `[N, *A]` in the units of the space, from actions in [-1, 1].

    They are computed in float64, since sums in float32 would round small actions.
    """
    actions = actions.reshape(len(actions), *space.shape)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if np.all(low == -1) and np.all(high == 1):
        return actions
    return (low + (actions.astype(np.float64) + 1) / 2 * (high - low)).astype(np.float32)
