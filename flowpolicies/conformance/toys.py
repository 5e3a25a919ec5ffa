"""Small environments that the checks learn in, one for each kind of observation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, final, get_args

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

ObservationKind = Literal[
    "box", "dict", "image", "image_first", "dict_image", "discrete", "multidiscrete", "multibinary", "dict_discrete"
]
"""Kinds of observations; "image" has its channels last, "image_first" has them first."""
KINDS: tuple[ObservationKind, ...] = get_args(ObservationKind)
IMAGE_SIZE = 36
"""Side of the images in pixels; the smallest that Stable-Baselines3's NatureCNN accepts."""
_IMAGE = spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8)


def _box(size: int) -> spaces.Box:
    return spaces.Box(-1.0, 1.0, (size,), np.float32)


def observation_space(kind: ObservationKind) -> spaces.Space[Any]:
    """The observation space of a kind.

    The keys of dictionaries are not in alphabetical order on purpose; Gymnasium sorts them unless they are keywords.
    """
    made: dict[ObservationKind, spaces.Space[Any]] = {
        "box": _box(3),
        "dict": spaces.Dict(velocity=_box(1), position=_box(2)),
        "image": _IMAGE,
        "image_first": spaces.Box(0, 255, (1, IMAGE_SIZE, IMAGE_SIZE), np.uint8),
        "dict_image": spaces.Dict(vector=_box(3), camera=_IMAGE),
        "discrete": spaces.Discrete(4),
        "multidiscrete": spaces.MultiDiscrete([4, 4, 4]),
        "multibinary": spaces.MultiBinary(3),
        "dict_discrete": spaces.Dict(vector=_box(3), bin=spaces.Discrete(4)),
    }
    return made[kind]


@final
class ToyEnv(gym.Env[Any, np.ndarray]):
    """A point in three dimensions that drifts towards the mean of the action; the reward is its negative square.

    Args:
        kind: kind of observation.
        length: number of steps of an episode.
        terminates: whether an episode ends by termination; otherwise by truncation.
        success: whether the last step of an episode reports `is_success`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self, kind: ObservationKind = "box", length: int = 10, *, terminates: bool = False, success: bool = False
    ) -> None:
        self.kind, self.length, self.terminates, self.success = kind, length, terminates, success
        self.observation_space = observation_space(kind)
        self.action_space = spaces.Box(np.array([-2, -1], np.float32), np.array([2, 3], np.float32))
        self.render_mode = "rgb_array"
        self.point, self.steps = np.zeros(3, np.float32), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.point, self.steps = self.np_random.uniform(-1, 1, 3).astype(np.float32), 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(np.asarray(action, np.float32)), f"action {action} is outside its bounds"
        self.point = np.clip(0.9 * self.point + 0.1 * float(np.mean(action)), -1, 1).astype(np.float32)
        self.steps += 1
        end = self.steps == self.length
        info = {"is_success": bool(self.point[0] > 0)} if end and self.success else {}
        reward = -float(np.square(self.point).sum())
        return self.observe(), reward, end and self.terminates, end and not self.terminates, info

    def observe(self) -> Any:
        """The observation of the present point."""
        bins = np.minimum(((self.point + 1) * 2).astype(np.int64), 3)
        image = np.full((IMAGE_SIZE, IMAGE_SIZE, 1), 127.5 * (self.point[0] + 1), np.uint8)
        image[: int(IMAGE_SIZE * (self.point[1] + 1) / 2)] = 255
        made: dict[ObservationKind, Callable[[], Any]] = {
            "box": lambda: self.point.copy(),
            "dict": lambda: {"velocity": self.point[2:].copy(), "position": self.point[:2].copy()},
            "image": lambda: image,
            "image_first": lambda: image.transpose(2, 0, 1),
            "dict_image": lambda: {"vector": self.point.copy(), "camera": image},
            "discrete": lambda: int(bins[0]),
            "multidiscrete": lambda: bins,
            "multibinary": lambda: (self.point > 0).astype(np.int8),
            "dict_discrete": lambda: {"vector": self.point.copy(), "bin": int(bins[0])},
        }
        return made[self.kind]()

    def render(self) -> Any:
        """One grey RGB image."""
        return np.full((32, 32, 3), 127, np.uint8)


@final
class WithActions(gym.Wrapper[Any, Any, Any, Any]):
    """An environment with another action space, to see which spaces a class refuses."""

    def __init__(self, env: gym.Env[Any, Any], action_space: spaces.Space[Any]) -> None:
        super().__init__(env)
        self.action_space = action_space


@final
class WithObservations(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that states another observation space, to see which spaces a class refuses."""

    def __init__(self, env: gym.Env[Any, Any], observation_space: spaces.Space[Any]) -> None:
        super().__init__(env)
        self.observation_space = observation_space


@final
class GymnasiumVectorBridge(VecEnv):
    """A `gymnasium.vector` environment as a VecEnv, as a user writes it who brings a vectorised simulator.

    Stable-Baselines3 does not take `gymnasium.vector` environments themselves. A VecEnv differs in three points: an
    environment that ended is reset within the same step, its last observation is in `info["terminal_observation"]`, and
    the infos are a list of dictionaries.
    """

    def __init__(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        self.envs, self.actions = envs, np.zeros(0)
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Any:
        seeds: Any = [None if seed is None else int(seed) for seed in self._seeds]
        observations, _ = self.envs.reset(seed=seeds)
        self._reset_seeds()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        observations, rewards, terminated, truncated, found = self.envs.step(self.actions)
        dones, infos = terminated | truncated, [dict[str, Any]() for _ in range(self.num_envs)]
        for i in np.flatnonzero(dones):
            last = {"terminal_observation": found["final_obs"][i]}
            infos[i] = {**last, "TimeLimit.truncated": bool(truncated[i] and not terminated[i])}
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.envs, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [getattr(self.envs, method_name)(*args, **kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs
