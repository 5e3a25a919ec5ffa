"""Checks of the environment, dataset and spaces that an algorithm is given, and that they fit together."""

from __future__ import annotations

import copy
import os
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, TypeVar

from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her import HerReplayBuffer

from flowpolicies.data import TransitionDataset, load_dataset
from flowpolicies.data.addresses import address_of, split_options
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.data.replay.pixels import stacked_space
from flowpolicies.shell.no_environment import AnyEnv
from flowpolicies.spaces.layout import check_action_space, check_space_fits, space_fits

EnvType = TypeVar("EnvType", bound=AnyEnv)

AUTO = "auto"
"""Instead of a dataset: the one that the model was trained on, by its address."""


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


def given_address(dataset: TransitionDataset | str | os.PathLike[str] | None) -> str | None:
    """The address, if the dataset was given by an address or a path; else None."""
    if isinstance(dataset, os.PathLike):
        return address_of(Path(dataset).absolute())
    return dataset if isinstance(dataset, str) else None


def record_of(dataset: TransitionDataset, address: str | None) -> dict[str, Any]:
    """What a model remembers of its dataset: name, address (None for arrays), fingerprint and number of rows."""
    return {"name": dataset.name, "address": address, "fingerprint": dataset.fingerprint, "rows": len(dataset)}


def recorded_address(record: dict[str, Any] | None, who: str) -> str:
    """The address of the dataset that a model was trained on.

    Raises:
        ValueError: if the model has had no dataset, or one that was not loaded from an address.
    """
    if record is None:
        raise ValueError(f'dataset="{AUTO}": this {who} was not trained on a dataset. Pass the dataset or its address.')
    if record["address"] is None:
        raise ValueError(
            f"dataset=\"{AUTO}\": this {who} was trained on '{record['name']}' ({record['rows']:,} transitions), which "
            "was given as arrays and not by an address. Pass the dataset itself: dataset=..."
        )
    address = str(record["address"])
    if "trust" in split_options(address)[1]:
        raise ValueError(
            f"dataset=\"{AUTO}\": the address '{address}' asks to run code in a file, which a saved model must not ask "
            "for. If you trust its author, pass the address yourself: dataset=..."
        )
    return address


def warn_of_missing_dataset(record: dict[str, Any] | None) -> None:
    """Warns before online training if a model was trained on a dataset that is not attached now."""
    if record is not None:
        warnings.warn(
            f"this model was trained on the dataset '{record['name']}' ({record['rows']:,} transitions, fingerprint "
            f"{record['fingerprint'][:12]}), which is not attached, so updates now see online transitions only. Attach "
            f'it with set_dataset(...) or load(..., dataset="{AUTO}"), or set model.dataset_record = None.',
            UserWarning,
            stacklevel=3,
        )


def warn_of_other_dataset(record: dict[str, Any] | None, dataset: TransitionDataset) -> None:
    """Warns if a trained model gets another dataset than the one that it was trained on."""
    if record is not None and record["fingerprint"] != dataset.fingerprint:
        warnings.warn(
            f"this model was trained on the dataset '{record['name']}' (fingerprint {record['fingerprint'][:12]}), and "
            f"continues on another one, '{dataset.name}' (fingerprint {dataset.fingerprint[:12]}).",
            UserWarning,
            stacklevel=4,
        )


def check_environment_fits(observation_space: spaces.Space[Any], action_space: spaces.Space[Any], env: VecEnv) -> None:
    """Raises a ValueError unless a model with these spaces can act in the environment.

    Shapes, types and keys must agree. Bounds of observations must agree where both are finite; bounds of actions must
    agree, because actions are scaled to them.
    """
    if not space_fits(observation_space, env.observation_space):
        raise ValueError(
            f"Observation spaces do not match: the model has {observation_space}, the environment "
            f"{env.observation_space}. Wrap the environment so that it shows what the model was trained on."
        )
    if not space_fits(action_space, env.action_space):
        raise ValueError(
            f"Action spaces do not match: the model has {action_space}, the environment {env.action_space}. If the "
            "data were given as arrays, pass action_space=env.action_space with them; or wrap the environment, for "
            "example with gymnasium.wrappers.RescaleAction."
        )


def in_order_of(own: spaces.Space[Any], theirs: spaces.Space[Any]) -> spaces.Space[Any]:
    """A space with the parts of `theirs`, and with the keys of a Dict in the order of `own`."""
    if isinstance(own, spaces.Dict) and isinstance(theirs, spaces.Dict):
        return spaces.Dict(OrderedDict((key, theirs[key]) for key in own.spaces))  # A plain dict would be sorted.
    return theirs


def copied_environment(env: EnvType, who: str) -> EnvType:
    """A copy of an environment, to evaluate in while the original is in use.

    Raises:
        ValueError: if it cannot be copied, as environments in other processes.
    """
    try:
        return copy.deepcopy(env)
    except Exception as error:  # Environments may hold anything.
        raise ValueError(
            f"the environment of {who} cannot be copied ({type(error).__name__}: {error}), which is needed to evaluate "
            "while learn() collects in it. Pass another one: evaluate(env=...)."
        ) from error


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
    if issubclass(given, HerReplayBuffer):
        raise ValueError(
            "replay_buffer_class=HerReplayBuffer: the buffer of this package relabels goals itself. Leave the argument "
            "out, and pass replay_buffer_kwargs=dict(online_goals=OnlineGoals()), from flowpolicies.data."
        )
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
