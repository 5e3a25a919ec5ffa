"""Columns of the replay buffer for a dataset, in memory or in files, with stacked images and goals to be drawn."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from flowpolicies.data.dataset.compact import SuccessorColumn
from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import FileColumn, LazyColumn, mapped_parts
from flowpolicies.data.replay.goals import Hindsight
from flowpolicies.data.replay.pixels import StackedFrames, TensorColumn
from flowpolicies.spaces.layout import as_tensor, flat_dtype, flatten_arrays, observation_layout, scale_actions
from flowpolicies.tree import leaf_at

OBSERVATIONS = ("observations", "next_observations")


def make_columns(
    dataset: TransitionDataset,
    observation_space: spaces.Space[Any],
    action_space: spaces.Box,
    hindsight: Hindsight | None,
    frame_stack: int,
) -> tuple[dict[str, Tensor], dict[str, LazyColumn]]:
    """The columns of a dataset: those in memory, and those whose rows are read or composed for each batch.

    Args:
        dataset: the transitions.
        observation_space: space of the observations in a batch, which are stacked images if `frame_stack` is not 1.
        action_space: bounds of the dataset's actions, which are scaled to [-1, 1].
        hindsight: if given, observations are stored without their goals, and the column `goals` holds the states that
            goals are drawn from.
        frame_stack: number of images in an observation.
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
    """Observations, next observations and goals by column, each with the space that gives the layout of its rows."""
    stored = space if hindsight is None else hindsight.rest
    parts: dict[str, tuple[Any, spaces.Space[Any]]] = {key: (getattr(dataset, key), stored) for key in OBSERVATIONS}
    if hindsight is not None:
        parts["goals"] = (leaf_at(dataset.observations, hindsight.pool), hindsight.rest[hindsight.pool])
    return parts


def _in_files(
    dataset: TransitionDataset, wide: dict[str, tuple[Any, spaces.Space[Any]]], action_space: spaces.Box
) -> dict[str, LazyColumn]:
    """The columns that stay in the files of a memory-mapped dataset; empty for a dataset in memory."""
    columns: dict[str, LazyColumn] = {}
    for key, (arrays, space) in wide.items():
        parts = mapped_parts(arrays, [entry.key for entry in observation_layout(space)])
        if parts is None:
            return {}
        columns[key] = FileColumn(parts, flat_dtype(space))
    actions = mapped_parts(dataset.actions, [None])
    if actions is None:
        return {}
    return columns | {"actions": FileColumn(actions, torch.float32, partial(scale_actions, action_space))}
