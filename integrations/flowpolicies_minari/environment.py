"""The environments of Minari's datasets, with the observations that the datasets are loaded with."""

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
from flowpolicies_minari.folder import find
from flowpolicies_minari.observations import Observations
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
    """The environment of a dataset, from the specification in its metadata.

    Args:
        name: of the dataset, such as "D4RL/pen/human-v2".
        data_dir: folder of all datasets; None: Minari's.
        evaluation: the environment that the authors evaluate in, if they name one; else the one they collected in.
        render_mode: as for `gymnasium.make`.
        reward_convention: as for `load`; under "d4rl-antmaze" the reward is r - 1, and the goal ends the episode.
        download: let Minari fetch the dataset if it is missing.
        **options: passed to `gymnasium.make`, such as `max_episode_steps`.

    Raises:
        ValueError: if the dataset names no environment, or another one than its data are from.
        ImportError: if the environment is not installed.
    """
    check_convention(reward_convention)
    folder = find(name, data_dir, download=download)
    metadata = folder.metadata()
    if render_mode is not None:
        options["render_mode"] = render_mode
    where = origin(metadata, folder.id, evaluation)
    if where is None:
        raise ValueError(
            f"Minari dataset '{folder.id}' names no environment. Training needs none; to evaluate, give one (--env on "
            "the command line)."
        )
    env = make_env_at(where, **options) if isinstance(where, str) else gymnasium.make(where, **options)
    made = MinariEnv(env, folder.id, reward_convention)
    _check_agreement(made, metadata, folder.id)
    return made


def origin(metadata: Mapping[str, Any], name: str, evaluation: bool = False) -> EnvSpec | str | None:
    """The address or the specification of a dataset's environment; None: it names none.

    Raises:
        ValueError: if its specification cannot be read.
        ImportError: if the environment is not installed.
    """
    if (address := _address(metadata)) is not None:
        return address
    text = _spec_text(metadata, evaluation)
    return None if text is None else read_spec(text, name, metadata.get("requirements") or ())


def environment_id(metadata: Mapping[str, Any]) -> str | None:
    """What a dataset says it was collected in: an address, or Gymnasium's id; None: nothing."""
    text = _spec_text(metadata, evaluation=False)
    if text is None or _address(metadata) is not None:
        return _address(metadata)
    try:
        return str(json.loads(text)["id"])
    except (ValueError, KeyError, TypeError):
        return "unknown"


@final
class MinariEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment with observations as datasets are loaded with, `info["is_success"]`, and a reward convention."""

    def __init__(self, env: gymnasium.Env[Any, Any], name: str, reward_convention: RewardConvention = "stored") -> None:
        super().__init__(env)
        self._name, self._convention = name, reward_convention
        self._observations = Observations(env.observation_space, name)
        self.observation_space = self._observations.space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observations.single(observation), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        rewards, terminations = apply_convention(
            self._convention, np.asarray([reward], np.float64), np.asarray([terminated], bool), self._name
        )
        if "success" in info and "is_success" not in info:
            info = {**info, "is_success": bool(info["success"])}
        flat = self._observations.single(observation)
        return flat, float(rewards[0]), bool(terminations[0]), bool(truncated), info


def _address(metadata: Mapping[str, Any]) -> str | None:
    """The address that `to_minari` wrote down."""
    own = metadata.get("flowpolicies") or {}
    return own.get("env")


def _spec_text(metadata: Mapping[str, Any], evaluation: bool) -> str | None:
    keys = ("eval_env_spec", "env_spec") if evaluation else ("env_spec", "eval_env_spec")
    return next((metadata[key] for key in keys if metadata.get(key)), None)


def _check_agreement(env: MinariEnv, metadata: Mapping[str, Any], name: str) -> None:
    """The data's observations and actions have the shapes of the environment's."""
    recorded = Observations(deserialize_space(metadata["observation_space"]), name).space
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
                f"the data {data}: another version of it, or changed while they were collected. Wrap an environment "
                "so that it gives what the data hold, and use it instead (--env on the command line)."
            )


def _shapes(space: Any) -> Any:
    assert isinstance(space, Box | Dict)
    return space.shape if isinstance(space, Box) else {key: box.shape for key, box in space.spaces.items()}
