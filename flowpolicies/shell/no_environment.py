"""The placeholder for the environment of a model that trains on a dataset alone."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from gymnasium import Env, spaces
from stable_baselines3.common.vec_env import VecEnv

AnyEnv = Env[Any, Any] | VecEnv


@final
class SpacesOnlyVecEnv(VecEnv):
    """An environment that only has spaces, so that callbacks can read `training_env` without an environment."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        super().__init__(1, observation_space, action_space)

    def _refuse(self) -> Any:
        raise ValueError("this model has no environment, only the spaces of its dataset. Call set_env(env) first.")

    def reset(self) -> Any:
        return self._refuse()

    def step_async(self, actions: np.ndarray) -> None:
        self._refuse()

    def step_wait(self) -> Any:
        return self._refuse()

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        self._refuse()

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return self._refuse()  # type: ignore[no-any-return]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False]


def require_environment(env: AnyEnv | None, who: str, purpose: str, otherwise: str) -> AnyEnv:
    """The environment, if there is one.

    Args:
        env: an environment, `SpacesOnlyVecEnv`, or None.
        who: class name of the algorithm, for the error.
        purpose: what the environment is needed for, after "to": "evaluate in".
        otherwise: what to do instead of `set_env`, for the error.

    Raises:
        ValueError: if there is no environment, or only spaces without one.
    """
    if env is None or isinstance(env, SpacesOnlyVecEnv):
        raise ValueError(f"{who} has no environment to {purpose}. Call set_env(env) first, or {otherwise}.")
    return env
