"""What an algorithm is set up with: spaces, replay buffer, arguments of the policy, data that fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.data import TransitionDataset, load_dataset
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.data.replay.pixels import stacked_space
from flowpolicies.shell.offline import SpacesOnlyVecEnv
from flowpolicies.spaces.layout import check_action_space, check_space_fits

if TYPE_CHECKING:
    from flowpolicies.shell.algorithm import OfflineAlgorithm

Env = gymnasium.Env[Any, Any] | VecEnv


def open_env(env: GymEnv | str | None, who: str, verbose: int) -> GymEnv | None:
    """The environment, made if that is its id.

    Raises:
        ValueError: if its actions are of a kind that algorithms do not have.
    """
    made = None if env is None else maybe_make_env(env, verbose)
    if made is not None:
        check_action_space(made.action_space, who)
    return made


def load(dataset: TransitionDataset | str | None) -> TransitionDataset | None:
    """The dataset, if that is its address.

    Raises:
        TypeError: if it is neither.
    """
    if isinstance(dataset, str):
        return load_dataset(dataset)
    if not isinstance(dataset, TransitionDataset | None):
        raise TypeError(
            f"dataset must be a TransitionDataset or an address such as 'npz:PATH', got {type(dataset).__name__}. "
            "TransitionDataset.from_arrays() makes one from arrays."
        )
    return dataset


def spaces_of(dataset: TransitionDataset | None, model: OfflineAlgorithm) -> tuple[spaces.Space[Any], spaces.Box]:
    """Spaces of observations and actions for a model without environment.

    Raises:
        ValueError: without a dataset, or for action spaces that are not supported.
    """
    if dataset is None:
        raise ValueError(
            f"{type(model).__name__} needs an environment or a dataset to know its spaces. Pass env=, or "
            'dataset= (for example dataset="ogbench:cube-single-play-singletask-task1-v0").'
        )
    return _observation_space(dataset, model), check_action_space(dataset.action_space, type(model).__name__)


def make_buffer(model: OfflineAlgorithm, seed: int) -> ReplayBuffer:
    """The replay buffer, as the algorithm declares it, and the user's `replay_buffer_kwargs` wish.

    Raises:
        ValueError: if the user's class is not one of ours.
    """
    buffer_class = model.replay_buffer_class or TransitionBuffer
    if not issubclass(buffer_class, TransitionBuffer):
        raise ValueError(
            f"replay_buffer_class must be TransitionBuffer, got {buffer_class.__name__}: losses need its batches"
        )
    model.replay_buffer_class = buffer_class
    declared = {
        "horizon": model.cfg.horizon,
        "n_steps": model.n_steps,
        "gamma": model.gamma,
        "windows": model.windows,
        "next_actions": model.uses_next_actions,
        "offline_share": model.offline_share,
        "seed": seed,
    }
    return buffer_class(
        model.buffer_size,
        model.observation_space,
        model.action_space,
        model.device,
        model.n_envs,
        model.optimize_memory_usage,
        **{**declared, **model.replay_buffer_kwargs},
    )


def policy_arguments(model: OfflineAlgorithm) -> dict[str, Any]:
    """Arguments of the policy that follow from the config."""
    cfg = model.cfg
    return {
        "networks": model.networks(cfg, model.tau),
        "sampler": model.sampler(cfg),
        "explorer": model.explorer(cfg),
        "act_with": model.act_with,
        "explore_with": model.explore_with,
        "horizon": cfg.horizon,
        "execute": cfg.execute,
        "encoder": cfg.encoder,
    }


def check_fits(dataset: TransitionDataset, model: OfflineAlgorithm) -> None:
    """Raises a ValueError unless the model can train on the dataset."""
    check_space_fits("observation_space", model.observation_space, _observation_space(dataset, model))
    check_space_fits("action_space", model.action_space, dataset.action_space)
    check_horizon(dataset, model.cfg.horizon)


def check_horizon(dataset: TransitionDataset, horizon: int) -> None:
    """Raises a ValueError if an episode is shorter than an action chunk: none of its windows would be valid."""
    lengths = dataset.episode_lengths
    shortest = int(lengths.min())
    if 1 < horizon > shortest:
        raise ValueError(
            f"horizon={horizon} is longer than the shortest of {len(lengths)} episodes ({shortest} steps; "
            f"{int((lengths < horizon).sum())} episodes are too short). Drop them, or choose a smaller horizon."
        )


def _observation_space(dataset: TransitionDataset, model: OfflineAlgorithm) -> spaces.Space[Any]:
    """Of what the model sees of a dataset, which holds one frame per row."""
    return stacked_space(dataset.observation_space, int((model.replay_buffer_kwargs or {}).get("frame_stack", 1)))


def require_environment(env: Env | None, model: OfflineAlgorithm, purpose: str, otherwise: str) -> Env:
    """The environment.

    Raises:
        ValueError: if there is none, or only spaces without one; with what to do.
    """
    if env is None or isinstance(env, SpacesOnlyVecEnv):
        raise ValueError(
            f"{type(model).__name__} has no environment to {purpose}. Call set_env(env) first, or {otherwise}."
        )
    return env
