"""Environments of Minari's datasets, with observations in the form in which the datasets are loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, SupportsFloat, final

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict
from minari.serialization import deserialize_space

from flowpolicies.data import make_env as make_env_at
from flowpolicies_minari.folder import fetch_folder
from flowpolicies_minari.observations import ObservationConverter
from flowpolicies_minari.rewards import RewardConvention, apply_convention, check_convention
from flowpolicies_minari.specs import read_spec


def make_env(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    evaluation: bool = True,
    render_mode: str | None = None,
    reward_convention: RewardConvention = "stored",
    download: bool = True,
    **options: Any,
) -> MinariEnv:
    """Make the environment of a dataset from the specification in its metadata.

    Args:
        name: Name of the dataset, such as "D4RL/pen/human-v2".
        data_dir: Folder of all datasets; None: Minari's.
        evaluation: Make the environment that the authors evaluate in, if the metadata name one; otherwise, and if this
            is False, the environment in which the data were collected.
        render_mode: Render mode of `gymnasium.make`.
        reward_convention: Reward convention as for `load`. With "d4rl-antmaze" the reward is r - 1, and reaching the
            goal ends the episode.
        download: Let Minari download the dataset if it is missing.
        **options: Options of `gymnasium.make`, such as `max_episode_steps`.

    Raises:
        ValueError: if the dataset names no environment, or the environment does not fit the data.
        ImportError: if the environment is not installed.
    """
    check_convention(reward_convention)
    folder = fetch_folder(name, data_dir, download=download)
    metadata = folder.metadata()
    if render_mode is not None:
        options["render_mode"] = render_mode
    where = origin(metadata, folder.id, evaluation)
    if where is None:
        raise ValueError(
            f"Minari dataset '{folder.id}' names no environment. Training does not need one; to evaluate, pass an "
            "environment yourself (--env on the command line)."
        )
    env = make_env_at(where, **options) if isinstance(where, str) else gymnasium.make(where, **options)
    made = MinariEnv(env, folder.id, reward_convention)
    _check_agreement(made, metadata, folder.id)
    return made


def origin(metadata: Mapping[str, Any], name: str, evaluation: bool = False) -> EnvSpec | str | None:
    """The address or the specification of a dataset's environment; None if the metadata name no environment.

    Raises:
        ValueError: if the specification cannot be read.
        ImportError: if the environment is not installed.
    """
    if (address := _address(metadata)) is not None:
        return address
    text = _spec_text(metadata, evaluation)
    return None if text is None else read_spec(text, name, metadata.get("requirements") or ())


def environment_id(metadata: Mapping[str, Any]) -> str | None:
    """Address or Gymnasium id of the environment in which a dataset was collected; None if the metadata name none."""
    text = _spec_text(metadata, evaluation=False)
    if text is None or _address(metadata) is not None:
        return _address(metadata)
    try:
        return str(json.loads(text)["id"])
    except (ValueError, KeyError, TypeError):
        return "unknown"


@final
class MinariEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment with observations as in the loaded dataset, `info["is_success"]` and a reward convention.

    Args:
        env: The environment in its original form.
        name: Name of the dataset, for error messages.
        reward_convention: Reward convention as for `load`.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], name: str, reward_convention: RewardConvention = "stored") -> None:
        super().__init__(env)
        self._name, self._convention = name, reward_convention
        self._converter = ObservationConverter(env.observation_space, name)
        self.observation_space = self._converter.space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._converter.single(observation), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        rewards, terminations = apply_convention(
            self._convention, np.asarray([reward], np.float64), np.asarray([terminated], bool), self._name
        )
        if "success" in info and "is_success" not in info:
            info = {**info, "is_success": bool(info["success"])}
        flat = self._converter.single(observation)
        return flat, float(rewards[0]), bool(terminations[0]), bool(truncated), info


def _address(metadata: Mapping[str, Any]) -> str | None:
    """Address of the environment, which only datasets written by `to_minari` have."""
    own = metadata.get("flowpolicies") or {}
    return own.get("env")


def _spec_text(metadata: Mapping[str, Any], evaluation: bool) -> str | None:
    keys = ("eval_env_spec", "env_spec") if evaluation else ("env_spec", "eval_env_spec")
    return next((metadata[key] for key in keys if metadata.get(key)), None)


def _check_agreement(env: MinariEnv, metadata: Mapping[str, Any], name: str) -> None:
    """Check that observations and actions have the same shapes in the data and in the environment.

    Raises:
        ValueError: if they differ.
    """
    recorded = ObservationConverter(deserialize_space(metadata["observation_space"]), name).space
    actions = deserialize_space(metadata["action_space"])
    pairs = {
        "observations": (_shapes(recorded), _shapes(env.observation_space)),
        "actions": (actions.shape, env.action_space.shape),
    }
    for what, (data, own) in pairs.items():
        if data != own:
            env.close()
            raise ValueError(
                f"the environment '{env.spec.id if env.spec else env}' of dataset '{name}' has {what} of shape {own}, "
                f"the data {data}. The data come from another version of the environment, or from a wrapped one. Wrap "
                "an environment so that its shapes are those of the data, and pass it (--env on the command line)."
            )


def _shapes(space: Any) -> Any:
    assert isinstance(space, Box | Dict)
    return space.shape if isinstance(space, Box) else {key: box.shape for key, box in space.spaces.items()}
