"""OGBench's environments, ready for Stable-Baselines3 and reproducible by `reset(seed=...)`."""

import warnings
from typing import Any, final

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete, Space

from flowpolicies.data.replay.pixels import FrameStack
from flowpolicies_ogbench.names import Mode, parse_name
from flowpolicies_ogbench.randomness import global_draws_from
from flowpolicies_ogbench.versions import ogbench_version

Array = npt.NDArray[Any]
Observation = Array | dict[str, Array]

_KEPT_INFOS = ("success", "xy")


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
    """The environment of a dataset.

    Single-task names: reward, termination and success of a step judge the state before it, as in the data; the episode
    ends with the step taken from a state of success. The time limit truncates.

    Names without "singletask" have goals: observations are a dict of `observation` and `desired_goal` (an observation,
    or OGBench's short description for "oraclerep"), the reward is 0 at the goal and -1 elsewhere. As in OGBench's
    protocol these judge the state after the step; `success_timing="pre"` changes that. The episode's goal is that of
    one of five tasks: `reset(options={"task_id": 3})` chooses, else it is drawn.

    Images have their channels first.

    Args:
        name: the dataset's name, such as "cube-single-play-singletask-task1-v0" or "cube-single-play-v0".
        seed: of the episodes; `reset(seed=...)` starts anew.
        render_mode: None or "rgb_array".
        sparse: give -1 until the whole task is done, rather than minus the number of its open parts.
        task_id: 1 to 5, the goal of every episode; only for names with goals.
        frame_stack: number of images that make an observation; before the first one it is repeated.
        **options: passed to `gymnasium.make`, such as `max_episode_steps`.

    Raises:
        ValueError: if there is no such environment, task or render mode.
        OSError: if images cannot be rendered here.
    """
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode '{render_mode}' is not supported by OGBench; pass 'rgb_array' or None.")
    task = parse_name(name)
    ogbench_version()  # Warns of old ones.
    if task_id is not None:
        _check_task(name, task_id, task.mode)
    if task.mode == "oraclerep":
        options["use_oracle_rep"] = True
    try:
        # Gymnasium's checker would warn about float64 bounds and missing render modes, which OGBenchEnv mends.
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
    """An OGBench environment with float32 observations, clipped actions, `info["is_success"]`, and its own randomness.

    Episodes are a function of the seed and of the number of resets since, whatever the actions. OGBench itself draws
    start and goal from NumPy's global state, and from an action space that nobody can seed; both are replaced here,
    and the global state is left alone.
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
        with global_draws_from(self._random_state):  # Manipulation environments compile and reset to tell their space.
            self.observation_space: Space[Any] = _public_space(inner.observation_space)
            if mode != "singletask":
                self.observation_space = self._goal_space(self.observation_space)
        # The others draw in `reset` only.
        self._draws_in_step = getattr(inner, "_teleport_info", None) is not None or hasattr(inner, "pw")
        inner.metadata = {"render_fps": 20, **inner.metadata, "render_modes": ["rgb_array"]}

    @property
    def unwrapped(self) -> "OGBenchEnv":
        """This environment; OGBench's own is `env.env.unwrapped`.

        OGBench's has a method `compute_reward` on which Stable-Baselines3 would take this for one of Gymnasium's goal
        environments, and it is not to be stepped around this one.
        """
        return self

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; without `seed`, the next one of the last seed.

        Raises:
            ValueError: if `options["task_id"]` is no task, or the environment has its task in its name.
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

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One step with the action clipped to the action space."""
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

    def _observe(self, observation: Array) -> Observation:
        state = _public_array(observation)
        if self._mode == "singletask":
            return state
        assert self._goal is not None
        observations = {"observation": state, "desired_goal": self._goal}
        if self._mode == "oraclerep":
            observations["achieved_goal"] = _public_array(_described(self.env.unwrapped))
        return observations

    def _public(self, info: dict[str, Any]) -> dict[str, Any]:
        """What a policy's user may see: the simulator's state and the goal observation stay out."""
        kept = {key: info[key] for key in _KEPT_INFOS if key in info}
        if self._mode != "singletask":
            inner: Any = self.env.unwrapped
            kept["task_id"] = inner.cur_task_id
        return {**kept, "is_success": bool(info["success"])} if "success" in info else kept


def _check_task(name: str, task_id: Any, mode: Mode) -> None:
    if mode == "singletask":
        raise ValueError(f"'{name}' has its task in its name; task_id={task_id} is for names with goals.")
    if task_id not in (1, 2, 3, 4, 5):
        raise ValueError(f"task_id={task_id} of '{name}' is none of its tasks (1 to 5).")


def sparse_rewards(rewards: Array) -> Array:
    """0 where the reward is 0, that is where the whole task is done, and -1 elsewhere.

    Raises:
        ValueError: if a reward is positive.
    """
    if np.any(rewards > 0):
        raise ValueError(
            f"sparse=True needs rewards of at most 0, but they reach {rewards.max():.6g}. Use sparse=False."
        )
    return np.where(rewards == 0, np.float32(0), np.float32(-1))


def channels_first(images: Array) -> Array:
    """`[*, H, W, C]` -> `[*, C, H, W]`, in memory too."""
    return np.ascontiguousarray(np.moveaxis(images, -1, -3))


def _described(env: Any) -> Array:
    """OGBench's short description of the present state, as its goals are described for "oraclerep"."""
    if hasattr(env, "compute_oracle_observation"):
        return np.asarray(env.compute_oracle_observation(), np.float32)
    return np.asarray(env.get_agent_ball_xy()[1] if hasattr(env, "get_agent_ball_xy") else env.get_xy(), np.float32)


def _public_array(array: Array) -> Array:
    return channels_first(array) if array.dtype == np.uint8 else array.astype(np.float32, copy=False)


def _public_space(space: Box) -> Box:
    if space.dtype == np.uint8:
        return Box(0, 255, (space.shape[-1], *space.shape[:-1]), np.uint8)
    return Box(-np.inf, np.inf, space.shape, np.float32)


def _copy_space(space: Space[Any]) -> Space[Any]:
    """An equal space with randomness of its own."""
    return Discrete(space.n) if isinstance(space, Discrete) else _float_box(space)


def _float_box(space: Any) -> Box:
    return Box(space.low, space.high, dtype=np.float32)


def _pin_action_space(env: Any) -> Space[Any]:
    """Give `env` one action space for good, and return it.

    Manipulation environments define `action_space` as a property that builds an unseeded Box at every access, and
    their `reset` samples from it to make the goal observation. An attribute of the instance cannot hide a property,
    but an attribute of a subclass can; so the instance moves to a subclass of its class.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # They give float64 bounds for a float32 Box, and Gymnasium says so.
        space = env.action_space
    pinned = _copy_space(space)
    if isinstance(getattr(type(env), "action_space", None), property):
        env.__class__ = type(type(env).__name__, (type(env),), {"action_space": pinned})
    else:
        env.action_space = pinned
    return pinned
