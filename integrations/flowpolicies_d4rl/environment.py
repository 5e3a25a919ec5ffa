"""D4RL's tasks in simulators that still install; its own need MuJoCo 2.1 and Python below 3.11."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr
from typing import Any, SupportsFloat, final

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit, TransformObservation

from flowpolicies_d4rl.antmaze import AntMaze
from flowpolicies_d4rl.names import Task, find_task

Array = npt.NDArray[np.float64]

_LOCOMOTION = {"halfcheetah": "HalfCheetah-v4", "hopper": "Hopper-v4", "walker2d": "Walker2d-v4"}
"""Version 4 is version 2, which D4RL has, in another binding of MuJoCo; version 5 has other rewards and models."""


def make_env(name: str, *, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """The environment that a dataset is evaluated in: D4RL's spaces, rewards, ends and time limit.

    It runs in another version of MuJoCo than D4RL's, so scores need not be the same: docs/data.md.

    Args:
        name: of the dataset, such as "antmaze-large-play-v2".
        render_mode: as for `gymnasium.make`.

    Raises:
        ValueError: if there is no such dataset, or nothing like its environment.
        ImportError: if its environment is not installed.
    """
    task = find_task(name)
    env = _make(task, render_mode)
    space = Box(-np.inf, np.inf, env.observation_space.shape, np.float32)
    return TimeLimit(TransformObservation(env, np.float32, space), task.max_episode_steps)


def _make(task: Task, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    if task.family == "antmaze":
        return AntMaze(task.body, render_mode)
    if task.family == "adroit":
        return _make_hand(task, render_mode)
    if task.family == "locomotion":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*out of date.*")
            return gymnasium.make(_LOCOMOTION[task.body], max_episode_steps=-1, render_mode=render_mode)
    raise ValueError(
        f"'{task.name}' has no environment: today's kitchens have other observations than D4RL's. Train without one "
        "(--eval-episodes 0), or pass one that gives D4RL's observations (--env)."
    )


def _make_hand(task: Task, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    try:
        with redirect_stderr(io.StringIO()):  # It says that its rewards are wrong, which is mended below.
            import gymnasium_robotics
    except ImportError as error:
        raise ImportError(
            f"the environment of '{task.name}' is one of Gymnasium-Robotics ({error}). "
            'Install it: pip install "flowpolicies[d4rl]"'
        ) from error
    gymnasium.register_envs(gymnasium_robotics)
    stem = f"AdroitHand{task.body.capitalize()}"
    newest = f"{stem}-v2" if f"{stem}-v2" in gymnasium.registry else f"{stem}-v1"
    made = gymnasium.make(newest, max_episode_steps=-1, render_mode=render_mode)
    return Hand(made, task.body, reaches_wrong_way=newest.endswith("v1"))


@final
class Hand(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An Adroit task with D4RL's rewards and ends: dropping the pen ends the episode.

    Args:
        env: Gymnasium-Robotics' environment.
        body: the task, such as "pen".
        reaches_wrong_way: its reward for the distance d of palm and object is d / 10 instead of -d / 10, which is so in
            version 1 of door, hammer and relocate.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], body: str, *, reaches_wrong_way: bool) -> None:
        super().__init__(env)
        self.body, self._reaches_wrong_way = body, reaches_wrong_way

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self.body == "pen":
            terminated = terminated or bool(self._object()[2] < 0.075)
        elif self._reaches_wrong_way:
            reward = float(reward) - 0.2 * self._reach()
        return observation, reward, terminated, truncated, {**info, "is_success": bool(info["success"])}

    def _object(self) -> Array:
        hand: Any = self.env.unwrapped
        place = hand.data.site_xpos[hand.handle_site_id] if self.body == "door" else hand.data.xpos[hand.obj_body_id]
        return np.asarray(place)

    def _reach(self) -> float:
        hand: Any = self.env.unwrapped
        palm = hand.data.site_xpos[hand.grasp_site_id if self.body == "door" else hand.S_grasp_site_id]
        return float(np.linalg.norm(palm - self._object()))
