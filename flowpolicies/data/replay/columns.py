"""A dataset as the columns of a buffer's store: in memory or in files, with goals and stacked frames as asked for."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from flowpolicies.data.dataset.compact import SuccessorColumn
from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import FileColumn, mapped_parts
from flowpolicies.data.replay.goals import Hindsight
from flowpolicies.data.replay.pixels import Column, StackedFrames, TensorColumn
from flowpolicies.spaces.layout import as_tensor, flat_dtype, flatten_arrays, observation_layout, scale_actions

OBSERVATIONS = ("observations", "next_observations")


def make_columns(
    dataset: TransitionDataset,
    observation_space: spaces.Space[Any],
    action_space: spaces.Box,
    hindsight: Hindsight | None,
    frame_stack: int,
) -> tuple[dict[str, Tensor], dict[str, Column]]:
    """Columns in memory, and those that are read when they are needed.

    Args:
        observation_space: what an observation of the batches is, of stacked frames if `frame_stack` is not 1.
        hindsight: keeps goals out of the observations, and adds the column `goals` to draw them from.
    """
    columns = {key: as_tensor(getattr(dataset, key)) for key in ("rewards", "masks", "terminals")}
    wide = _wide_parts(dataset, observation_space, hindsight)
    if dataset.final_observations is not None:
        del wide["next_observations"]
    in_files = _in_files(dataset, wide, action_space)
    if not in_files:
        columns |= {key: flatten_arrays(space, arrays) for key, (arrays, space) in wide.items()}
        columns["actions"] = as_tensor(scale_actions(action_space, dataset.actions))
    if dataset.final_observations is not None:
        states = in_files.get("observations") or TensorColumn(columns["observations"])
        finals = flatten_arrays(wide["observations"][1], dataset.final_observations)
        in_files["next_observations"] = SuccessorColumn(states, finals, dataset.episode_ends)
    if frame_stack > 1:
        following = in_files.get("next_observations") or TensorColumn(columns.pop("next_observations"))
        frames = in_files.get("observations") or TensorColumn(columns.pop("observations"))
        in_files["observations"] = StackedFrames(frames, None, dataset.episode_ends, frame_stack)
        in_files["next_observations"] = StackedFrames(frames, following, dataset.episode_ends, frame_stack)
    return columns, in_files


def _wide_parts(
    dataset: TransitionDataset, space: spaces.Space[Any], hindsight: Hindsight | None
) -> dict[str, tuple[Any, spaces.Space[Any]]]:
    """What is made of observations, each with the space that says how it lies in a row."""
    stored = space if hindsight is None else hindsight.rest
    parts: dict[str, tuple[Any, spaces.Space[Any]]] = {key: (getattr(dataset, key), stored) for key in OBSERVATIONS}
    if hindsight is not None:
        assert isinstance(dataset.observations, dict)
        parts["goals"] = (dataset.observations[hindsight.pool], hindsight.rest[hindsight.pool])
    return parts


def _in_files(
    dataset: TransitionDataset, wide: dict[str, tuple[Any, spaces.Space[Any]]], action_space: spaces.Box
) -> dict[str, Column]:
    """The wide columns of a memory-mapped dataset; none for one in memory."""
    columns: dict[str, Column] = {}
    for key, (arrays, space) in wide.items():
        parts = mapped_parts(arrays, [entry.key for entry in observation_layout(space)])
        if parts is None:
            return {}
        columns[key] = FileColumn(parts, flat_dtype(space))
    actions = mapped_parts(dataset.actions, [None])
    if actions is None:
        return {}
    return columns | {"actions": FileColumn(actions, torch.float32, partial(scale_actions, action_space))}
