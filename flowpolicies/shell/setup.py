"""Checks of the environment, dataset and spaces that an algorithm is given, and that they fit together."""

from __future__ import annotations

import os
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import GymEnv

from flowpolicies.data import TransitionDataset, load_dataset
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.data.replay.pixels import stacked_space
from flowpolicies.spaces.layout import check_action_space, check_space_fits


def open_env(env: GymEnv | str | None, who: str, verbose: int) -> GymEnv | None:
    """The environment, made by `gymnasium.make` if an id is given.

    Raises:
        ValueError: if its actions are of a kind that the algorithms do not support.
    """
    made = None if env is None else maybe_make_env(env, verbose)
    if made is not None:
        check_action_space(made.action_space, who)
    return made


def as_dataset(dataset: TransitionDataset | str | os.PathLike[str]) -> TransitionDataset:
    """The dataset, loaded if an address or a path is given.

    Raises:
        TypeError: if it is neither a dataset nor an address.
    """
    if isinstance(dataset, str | os.PathLike):
        return load_dataset(dataset)
    if not isinstance(dataset, TransitionDataset):
        raise TypeError(
            f"dataset must be a TransitionDataset or an address such as 'npz:PATH', got {type(dataset).__name__}. "
            "TransitionDataset.from_arrays() makes one from arrays."
        )
    return dataset


def spaces_of(dataset: TransitionDataset | None, who: str, frame_stack: int) -> tuple[spaces.Space[Any], spaces.Box]:
    """Spaces of observations and actions for a model without an environment.

    Args:
        dataset: the dataset to train on, or None.
        who: class name of the algorithm, for errors.
        frame_stack: number of consecutive images that the model sees as one observation.

    Raises:
        ValueError: without a dataset, or for an action space that is not supported.
    """
    if dataset is None:
        raise ValueError(
            f"{who} needs an environment or a dataset to know its spaces. Pass env=, or "
            'dataset= (for example dataset="ogbench:cube-single-play-singletask-task1-v0").'
        )
    return stacked_space(dataset.observation_space, frame_stack), check_action_space(dataset.action_space, who)


def buffer_class(given: type[ReplayBuffer] | None) -> type[TransitionBuffer]:
    """The class of the replay buffer; `TransitionBuffer` unless another is given.

    Raises:
        ValueError: for a class whose batches the losses cannot read.
    """
    if given is None:
        return TransitionBuffer
    if not issubclass(given, TransitionBuffer):
        raise ValueError(
            f"replay_buffer_class must be TransitionBuffer or a subclass of it, got {given.__name__}: "
            "the losses need its batches. Leave the argument out."
        )
    return given


def check_fits(
    dataset: TransitionDataset,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    horizon: int,
    frame_stack: int,
) -> None:
    """Raises a ValueError unless a model with these spaces and this horizon can train on the dataset.

    Args:
        frame_stack: number of consecutive images that the model sees as one observation; a dataset has one per row.
    """
    shown = stacked_space(dataset.observation_space, frame_stack)
    check_space_fits("observation_space", observation_space, shown)
    check_space_fits("action_space", action_space, dataset.action_space)
    check_horizon(dataset, horizon)


def check_horizon(dataset: TransitionDataset, horizon: int) -> None:
    """Raises a ValueError if an episode is shorter than an action chunk: none of its windows would be valid."""
    lengths = dataset.episode_lengths
    shortest = int(lengths.min())
    if 1 < horizon > shortest:
        raise ValueError(
            f"horizon={horizon} is longer than the shortest of {len(lengths)} episodes ({shortest} steps; "
            f"{int((lengths < horizon).sum())} episodes are too short). Drop them by "
            f"dataset.filter(min_length={horizon}), load_dataset(address, min_length={horizon}) or "
            f"--min-length {horizon}, or choose a smaller horizon."
        )
