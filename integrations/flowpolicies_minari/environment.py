"""Environments of Minari's datasets, with observations in the form in which the datasets are loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, SupportsFloat, final

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict

from flowpolicies.artifacts import ArtifactError, parse_json, reading
from flowpolicies.data import make_env as make_env_at
from flowpolicies.data.switches import as_switch
from flowpolicies_minari.allowed import address_fault
from flowpolicies_minari.folder import Folder, fetch_folder
from flowpolicies_minari.observations import ObservationConverter
from flowpolicies_minari.rewards import RewardConvention, apply_convention, check_convention
from flowpolicies_minari.spaces import read_space
from flowpolicies_minari.specs import needs_trust, read_spec


def make_env(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    evaluation: bool = True,
    render_mode: str | None = None,
    reward_convention: RewardConvention = "stored",
    download: bool = True,
    trust: bool = False,
    **options: Any,
) -> MinariEnv:
    """Make the environment of a dataset from the specification in its metadata.

    Without trust, only registered environments, Gymnasium's own wrappers and plain arguments are followed, see
    `flowpolicies_minari.specs.read_spec`.

    Args:
        name: Name of the dataset, such as "D4RL/pen/human-v2".
        data_dir: Folder of all datasets; None: Minari's.
        evaluation: Make the environment that the authors evaluate in, if the metadata name one; otherwise, and if this
            is False, the environment in which the data were collected.
        render_mode: Render mode of `gymnasium.make`.
        reward_convention: Reward convention as for `load`. With "d4rl-antmaze" the reward is r - 1, and reaching the
            goal ends the episode.
        download: Let Minari download the dataset if it is missing.
        trust: Import and call what the metadata name, which runs any code that their author chose.
        **options: Options of `gymnasium.make`, such as `max_episode_steps`.

    Raises:
        ArtifactError: if the metadata are damaged or were changed, name something that needs trust or no environment,
            or the environment does not fit the data.
        ValueError: if an option has a wrong value.
        ImportError: if the environment is not installed.
    """
    check_convention(reward_convention)
    trust = as_switch("trust", trust)
    folder = fetch_folder(name, data_dir, download=download)
    folder.check_metadata()
    metadata = folder.metadata()
    if render_mode is not None:
        options["render_mode"] = render_mode
    where = origin(folder, metadata, evaluation, trust=trust)
    if where is None:
        raise ArtifactError(
            folder.metadata_path,
            f"Minari dataset '{folder.id}' names no environment. Training does not need one; to evaluate, pass an "
            "environment yourself (--env on the command line)",
        )
    env = make_env_at(where, **options) if isinstance(where, str) else _make(where, folder, options)
    made = MinariEnv(env, folder.id, reward_convention)
    _check_agreement(made, metadata, folder)
    return made


def origin(
    folder: Folder, metadata: Mapping[str, Any], evaluation: bool = False, *, trust: bool = False
) -> EnvSpec | str | None:
    """The address or the specification of a dataset's environment; None if the metadata name no environment.

    Raises:
        ArtifactError: if the specification cannot be read, or names something that needs trust.
        ImportError: if the environment is not installed.
    """
    if (address := _address(metadata)) is not None:
        if not trust and (fault := address_fault(address)) is not None:
            raise needs_trust(folder.metadata_path, folder.id, f"environment {address!r}", fault, "flowpolicies")
        return address
    text = _spec_text(metadata, evaluation)
    if text is None:
        return None
    requirements = metadata.get("requirements") or ()
    return read_spec(text, folder.id, requirements, trust=trust, path=folder.metadata_path)


def environment_id(metadata: Mapping[str, Any]) -> str | None:
    """Address or Gymnasium id of the environment in which a dataset was collected; None if the metadata name none."""
    text = _spec_text(metadata, evaluation=False)
    if text is None or _address(metadata) is not None:
        return _address(metadata)
    try:
        return str(parse_json(text, "metadata.json")["id"])
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


def _make(spec: EnvSpec, folder: Folder, options: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """Make the environment of a specification; a fault of the dataset's arguments is one of the dataset."""
    try:
        return gymnasium.make(spec, **options)
    except (TypeError, ValueError, KeyError) as error:
        if isinstance(error, ArtifactError) or any(f"'{key}'" in str(error) for key in options):
            raise
        raise ArtifactError(
            folder.metadata_path,
            f"environment '{spec.id}' cannot be made with the arguments {spec.kwargs} and the wrappers "
            f"{[wrapper.name for wrapper in spec.additional_wrappers]}: {error}",
            place="env_spec",
        ) from error


def _address(metadata: Mapping[str, Any]) -> str | None:
    """Address of the environment, which only datasets written by `to_minari` have."""
    own = metadata.get("flowpolicies") or {}
    return own.get("env")


def _spec_text(metadata: Mapping[str, Any], evaluation: bool) -> str | None:
    keys = ("eval_env_spec", "env_spec") if evaluation else ("env_spec", "eval_env_spec")
    return next((metadata[key] for key in keys if metadata.get(key)), None)


def _check_agreement(env: MinariEnv, metadata: Mapping[str, Any], folder: Folder) -> None:
    """Check that observations and actions have the same shapes in the data and in the environment.

    Raises:
        ArtifactError: if they differ.
    """
    name = folder.id
    observations, actions = (
        read_space(metadata[key], folder.metadata_path, key) for key in ("observation_space", "action_space")
    )
    with reading(folder.metadata_path, "observation_space"):
        recorded = ObservationConverter(observations, name).space
    pairs = {
        "observations": (_shapes(recorded), _shapes(env.observation_space)),
        "actions": (actions.shape, env.action_space.shape),
    }
    for what, (data, own) in pairs.items():
        if data != own:
            env.close()
            raise ArtifactError(
                folder.metadata_path,
                f"the environment '{env.spec.id if env.spec else env}' of dataset '{name}' has {what} of shape {own}, "
                f"the data {data}. The data come from another version of the environment, or from a wrapped one. Wrap "
                "an environment so that its shapes are those of the data, and pass it (--env on the command line)",
            )


def _shapes(space: Any) -> Any:
    assert isinstance(space, Box | Dict)
    return space.shape if isinstance(space, Box) else {key: box.shape for key, box in space.spaces.items()}
