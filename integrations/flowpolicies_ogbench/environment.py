"""OGBench's environments for Stable-Baselines3, with episodes that `reset(seed=...)` reproduces."""

import warnings
from typing import Any, final

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Space

from flowpolicies.data.replay.pixels import FrameStack
from flowpolicies.tree import Array
from flowpolicies_ogbench.names import Mode, parse_name
from flowpolicies_ogbench.randomness import global_draws_from
from flowpolicies_ogbench.versions import ogbench_version

_KEPT_INFOS = ("success", "xy")
"""Keys of OGBench's `info` that are passed on."""


def make_env(
    name: str,
    *,
    seed: int | None = None,
    render_mode: str | None = None,
    sparse: bool = False,
    task_id: int | None = None,
    frame_stack: int = 1,
    **options: Any,
) -> gymnasium.Env[Any, Any]:
    """Make the environment that belongs to a dataset.

    Single-task names: the reward, the termination and the success of a step judge the state before the step, as in the
    data. So an episode ends one step after its first state of success. The time limit truncates.

    Names without "singletask" are goal-conditioned: observations are a dict of `observation` and `desired_goal` (an
    observation, or for "oraclerep" OGBench's short representation of the goal), and the reward is 0 at the goal and
    -1 elsewhere. Reward and termination judge the state after the step, as in OGBench's protocol; the option
    `success_timing="pre"` changes that. The goal of an episode belongs to one of five tasks, which is drawn at random
    unless `reset(options={"task_id": 3})` chooses it.

    Images are channels-first.

    Args:
        name: Name of the dataset, such as "cube-single-play-singletask-task1-v0" or "cube-single-play-v0".
        seed: Seed of the episodes; `reset(seed=...)` replaces it.
        render_mode: None or "rgb_array".
        sparse: Give a reward of -1 until the whole task is done, instead of minus the number of its unsolved subtasks.
        task_id: Task whose goal every episode has, 1 to 5; only for goal-conditioned names.
        frame_stack: Number of images in an observation. At the start of an episode the first image is repeated.
        **options: Options of `gymnasium.make`, such as `max_episode_steps`.

    Raises:
        ValueError: if the environment, the task or the render mode does not exist.
        OSError: if MuJoCo cannot render images on this machine.
    """
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode '{render_mode}' is not supported by OGBench; pass 'rgb_array' or None.")
    task = parse_name(name)
    ogbench_version()  # Warns if OGBench is too old.
    if task_id is not None:
        _check_task(name, task_id, task.mode)
    if task.mode == "oraclerep":
        options["use_oracle_rep"] = True
    try:
        # Gymnasium's checker would warn of float64 bounds and missing render modes, both of which OGBenchEnv corrects.
        made = gymnasium.make(task.environment, disable_env_checker=True, **options)
        env = OGBenchEnv(made, seed=seed, render_mode=render_mode, sparse=sparse, mode=task.mode, task_id=task_id)
    except (mujoco.FatalError, AttributeError, ImportError) as error:
        if not task.scene.startswith("visual-"):
            raise
        raise OSError(
            f"'{name}' needs MuJoCo to render images, which failed ({error}). Without a screen set the environment "
            "variable MUJOCO_GL=egl (with a GPU or Mesa) or MUJOCO_GL=osmesa before Python starts."
        ) from error
    return env if frame_stack == 1 else FrameStack(env, frame_stack)


@final
class OGBenchEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An OGBench environment with float32 observations, clipped actions, `info["is_success"]` and its own generator.

    An episode depends only on the seed and on the number of resets since then, whatever the actions were. OGBench
    itself draws starts and goals from NumPy's global random state and from an action space that cannot be seeded. This
    class replaces both, and does not change the global state.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        seed: int | None = None,
        render_mode: str | None = None,
        sparse: bool = False,
        mode: Mode = "singletask",
        task_id: int | None = None,
    ) -> None:
        super().__init__(env)
        self._generator = np.random.default_rng(seed)
        self._random_state = np.random.RandomState(0)
        self._sparse, self._mode, self._task_id = sparse, mode, task_id
        self._goal: Array | None = None
        inner: Any = env.unwrapped
        self._inner_action_space = _pin_action_space(inner)
        self.action_space = _copy_space(self._inner_action_space)
        inner.render_mode = render_mode
        # Manipulation environments compile their model and reset when they are asked for `observation_space`
        # (ogbench/manipspace/envs/manipspace_env.py), so this line draws random numbers.
        with global_draws_from(self._random_state):
            self.observation_space: Space[Any] = _public_space(inner.observation_space)
            if mode != "singletask":
                self.observation_space = self._goal_space(self.observation_space)
        # Only teleport mazes (ogbench/locomaze/maze.py) and Powderworld draw random numbers during a step.
        self._draws_in_step = getattr(inner, "_teleport_info", None) is not None or hasattr(inner, "pw")
        inner.metadata = {"render_fps": 20, **inner.metadata, "render_modes": ["rgb_array"]}

    @property
    def unwrapped(self) -> "OGBenchEnv":
        """This environment; OGBench's own environment is `env.env.unwrapped`.

        OGBench's environment has a method `compute_reward`, which Stable-Baselines3 would take for that of a
        Gymnasium-Robotics goal environment. It must also not be stepped without this wrapper.
        """
        return self

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array | dict[str, Array], dict[str, Any]]:
        """Start an episode: the first one of `seed`, or without it the next one of the last seed.

        Raises:
            ValueError: if `options["task_id"]` is not between 1 and 5, or the name of the environment fixes the task.
        """
        if options and "task_id" in options:
            _check_task(self.env.spec.id if self.env.spec else "this", options["task_id"], self._mode)
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        episode_seed = int(self._generator.integers(2**31))
        self._random_state.seed(episode_seed)
        self._inner_action_space.seed(episode_seed)
        if self._task_id is not None:
            options = {"task_id": self._task_id, **(options or {})}
        with global_draws_from(self._random_state):
            observation, info = self.env.reset(seed=episode_seed, options=options)
        self._goal = _public_array(info["goal"])
        return self._observe(observation), self._public(info)

    def step(self, action: Any) -> tuple[Array | dict[str, Array], float, bool, bool, dict[str, Any]]:
        """Take one step with the action clipped to the action space."""
        if isinstance(self._inner_action_space, Box):
            action = np.clip(action, self._inner_action_space.low, self._inner_action_space.high)
        if self._draws_in_step:
            with global_draws_from(self._random_state):
                outcome = self.env.step(action)
        else:
            outcome = self.env.step(action)
        observation, reward, terminated, truncated, info = outcome
        if self._mode != "singletask":
            reward = float(info["success"]) - 1.0
        elif self._sparse:
            reward = float(sparse_rewards(np.asarray(reward)))
        return self._observe(observation), float(reward), bool(terminated), bool(truncated), self._public(info)

    def _goal_space(self, states: Box) -> Dict:
        if self._mode == "goals":
            return Dict({"observation": states, "desired_goal": states})
        goals = Box(-np.inf, np.inf, np.shape(self.env.reset(seed=0)[1]["goal"]), np.float32)
        return Dict({"observation": states, "achieved_goal": goals, "desired_goal": goals})

    def _observe(self, observation: Array) -> Array | dict[str, Array]:
        state = _public_array(observation)
        if self._mode == "singletask":
            return state
        assert self._goal is not None
        observations = {"observation": state, "desired_goal": self._goal}
        if self._mode == "oraclerep":
            observations["achieved_goal"] = _public_array(_oracle_representation(self.env.unwrapped))
        return observations

    def _public(self, info: dict[str, Any]) -> dict[str, Any]:
        """The `info` without the simulator's state and the goal observation."""
        kept = {key: info[key] for key in _KEPT_INFOS if key in info}
        if self._mode != "singletask":
            inner: Any = self.env.unwrapped
            kept["task_id"] = inner.cur_task_id
        return {**kept, "is_success": bool(info["success"])} if "success" in info else kept


def _check_task(name: str, task_id: Any, mode: Mode) -> None:
    if mode == "singletask":
        raise ValueError(
            f"'{name}' has a single task, which its name fixes, so task_id={task_id} cannot be chosen. Use a "
            "goal-conditioned name, which has no 'singletask' in it."
        )
    if task_id not in (1, 2, 3, 4, 5):
        raise ValueError(f"task_id={task_id} is not a task of '{name}': its tasks are 1 to 5.")


def sparse_rewards(rewards: Array) -> Array:
    """Sparse rewards: 0 where the reward is 0, which means that the whole task is done, and -1 elsewhere.

    Raises:
        ValueError: if a reward is positive.
    """
    if np.any(rewards > 0):
        raise ValueError(
            f"sparse=True needs rewards of at most 0, but the largest is {rewards.max():.6g}. Use sparse=False."
        )
    return np.where(rewards == 0, np.float32(0), np.float32(-1))


def channels_first(images: Array) -> Array:
    """Images `[*, C, H, W]` from `[*, H, W, C]`, contiguous in memory."""
    return np.ascontiguousarray(np.moveaxis(images, -1, -3))


def _oracle_representation(env: Any) -> Array:
    """The current state in the short representation that OGBench has for goals of "oraclerep" environments."""
    if hasattr(env, "compute_oracle_observation"):
        return np.asarray(env.compute_oracle_observation(), np.float32)
    # Mazes have no such method for states: the goal is the position of the ball in antsoccer, and that of the robot
    # elsewhere (`get_oracle_rep` in ogbench/locomaze/maze.py).
    return np.asarray(env.get_agent_ball_xy()[1] if hasattr(env, "get_agent_ball_xy") else env.get_xy(), np.float32)


def _public_array(array: Array) -> Array:
    return channels_first(array) if array.dtype == np.uint8 else array.astype(np.float32, copy=False)


def _public_space(space: Box) -> Box:
    if space.dtype == np.uint8:
        return Box(0, 255, (space.shape[-1], *space.shape[:-1]), np.uint8)
    return Box(-np.inf, np.inf, space.shape, np.float32)


def _copy_space(space: Any) -> Space[Any]:
    """An equal space with its own random generator."""
    return Discrete(space.n) if isinstance(space, Discrete) else Box(space.low, space.high, dtype=np.float32)


def _pin_action_space(env: Any) -> Space[Any]:
    """Give `env` one action space that it keeps, and return that space."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium warns that OGBench gives float64 bounds for a float32 Box.
        space = env.action_space
    pinned = _copy_space(space)
    # Manipulation environments define `action_space` as a property that makes a new, unseeded Box at every access
    # (ogbench/manipspace/envs/manipspace_env.py), and their `reset` samples from it to make the goal observation. An
    # attribute of the instance cannot hide a property, but an attribute of a subclass can. So the class of the instance
    # becomes a subclass of its class.
    if isinstance(getattr(type(env), "action_space", None), property):
        env.__class__ = type(
            type(env).__name__, (type(env),), {"action_space": pinned, "__module__": type(env).__module__}
        )
    else:
        env.action_space = pinned
    return pinned
