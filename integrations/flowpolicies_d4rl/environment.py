"""D4RL's environments rebuilt with current simulators; D4RL itself needs MuJoCo 2.1 and Python below 3.11."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr
from typing import Any, SupportsFloat, final

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit, TransformObservation

from flowpolicies.tree import Array
from flowpolicies_d4rl.antmaze import AntMaze
from flowpolicies_d4rl.names import Task, find_task

_LOCOMOTION = {"halfcheetah": "HalfCheetah-v4", "hopper": "Hopper-v4", "walker2d": "Walker2d-v4"}
"""Gymnasium's environments that correspond to D4RL's.

D4RL has version 2. Version 4 is the same with another binding of MuJoCo, while version 5 has other rewards and models.
"""


def make_env(name: str, *, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """Make the environment in which a dataset is evaluated, with D4RL's spaces, rewards, terminations and time limit.

    It uses another version of MuJoCo than D4RL does, so scores can differ from D4RL's, see docs/data.md.

    Args:
        name: Name of the dataset, such as "antmaze-large-play-v2".
        render_mode: Render mode as for `gymnasium.make`.

    Raises:
        ValueError: if the dataset does not exist, or no current environment corresponds to it.
        ImportError: if the environment is not installed.
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
        f"'{task.name}' has no environment: current kitchen environments have other observations than D4RL's. Train "
        "without an environment (--eval-episodes 0), or pass one with D4RL's observations (--env)."
    )


def _make_hand(task: Task, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    try:
        # The import prints that the rewards of version 1 are wrong, which `Hand` corrects.
        with redirect_stderr(io.StringIO()):
            import gymnasium_robotics
    except ImportError as error:
        raise ImportError(
            f"the environment of '{task.name}' needs Gymnasium-Robotics ({error}). "
            'Install it with: pip install "flowpolicies[d4rl]"'
        ) from error
    gymnasium.register_envs(gymnasium_robotics)
    stem = f"AdroitHand{task.body.capitalize()}"
    newest = f"{stem}-v2" if f"{stem}-v2" in gymnasium.registry else f"{stem}-v1"
    made = gymnasium.make(newest, max_episode_steps=-1, render_mode=render_mode)
    return Hand(made, task.body, reaches_wrong_way=newest.endswith("v1"))


@final
class Hand(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An Adroit environment with the rewards and terminations of D4RL.

    Args:
        env: Environment of Gymnasium-Robotics.
        body: Name of the task: "pen", "door", "hammer" or "relocate".
        reaches_wrong_way: Whether the environment rewards the distance d between palm and object with d / 10 instead of
            -d / 10, as version 1 of door, hammer and relocate does.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], body: str, *, reaches_wrong_way: bool) -> None:
        super().__init__(env)
        self.body, self._reaches_wrong_way = body, reaches_wrong_way

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        # D4RL ends the episode when the pen is dropped (d4rl/hand_manipulation_suite/pen_v0.py), and its other tasks
        # penalise the distance between palm and object (door_v0.py, hammer_v0.py, relocate_v0.py).
        if self.body == "pen":
            terminated = terminated or bool(self._object()[2] < 0.075)
        elif self._reaches_wrong_way:
            reward = float(reward) - 0.2 * self._reach()
        return observation, reward, terminated, truncated, {**info, "is_success": bool(info["success"])}

    def _object(self) -> Array:
        """Position of the object, which is the handle of the door in the task "door"."""
        hand: Any = self.env.unwrapped
        return np.asarray(
            hand.data.site_xpos[hand.handle_site_id] if self.body == "door" else hand.data.xpos[hand.obj_body_id]
        )

    def _reach(self) -> float:
        """Distance between the palm and the object."""
        hand: Any = self.env.unwrapped
        palm = hand.data.site_xpos[hand.grasp_site_id if self.body == "door" else hand.S_grasp_site_id]
        return float(np.linalg.norm(palm - self._object()))
