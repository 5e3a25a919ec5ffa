"""OGBench's single-task environments, ready for Stable-Baselines3 and reproducible by `reset(seed=...)`."""

import warnings
from typing import Any, final

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from flowpolicies_ogbench.names import parse_name
from flowpolicies_ogbench.randomness import global_draws_from

Array = npt.NDArray[Any]

_KEPT_INFOS = ("success", "xy")


def make_env(
    name: str, *, seed: int | None = None, render_mode: str | None = None, sparse: bool = False, **options: Any
) -> "OGBenchEnv":
    """The environment of a single-task dataset.

    Reward, termination and success of a step judge the state before it, as in the data: the episode ends with the
    step taken from a state of success. The time limit truncates.

    Args:
        name: the dataset's name, such as "cube-single-play-singletask-task1-v0".
        seed: of the episodes; `reset(seed=...)` starts anew.
        render_mode: None or "rgb_array".
        sparse: give -1 until the whole task is done, rather than minus the number of its open parts.
        **options: passed to `gymnasium.make`, such as `max_episode_steps`.

    Raises:
        ValueError: if there is no such environment or render mode.
    """
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode '{render_mode}' is not supported by OGBench; pass 'rgb_array' or None.")
    # Gymnasium's checker would warn about float64 bounds and missing render modes, which OGBenchEnv mends.
    env = gymnasium.make(parse_name(name).environment, disable_env_checker=True, **options)
    return OGBenchEnv(env, seed=seed, render_mode=render_mode, sparse=sparse)


@final
class OGBenchEnv(gymnasium.Wrapper[Array, Array, Array, Array]):
    """An OGBench environment with float32 observations, clipped actions, `info["is_success"]`, and its own randomness.

    Episodes are a function of the seed and of the number of resets since. OGBench itself draws start and goal from
    NumPy's global state, and from an action space that nobody can seed; both are replaced here, and the global state
    is left alone.
    """

    def __init__(
        self,
        env: gymnasium.Env[Array, Array],
        *,
        seed: int | None = None,
        render_mode: str | None = None,
        sparse: bool = False,
    ) -> None:
        super().__init__(env)
        self._generator = np.random.default_rng(seed)
        self._random_state = np.random.RandomState(0)
        self._sparse = sparse
        inner: Any = env.unwrapped
        self._inner_action_space = _pin_action_space(inner)
        self.action_space = Box(self._inner_action_space.low, self._inner_action_space.high, dtype=np.float32)
        with global_draws_from(self._random_state):  # Manipulation environments compile and reset to tell their space.
            space = inner.observation_space
        self.observation_space = space if space.dtype == np.uint8 else Box(-np.inf, np.inf, space.shape, np.float32)
        # Only the teleport mazes draw during a step.
        self._draws_in_step = getattr(inner, "_teleport_info", None) is not None
        inner.render_mode = render_mode
        inner.metadata = {"render_fps": 20, **inner.metadata, "render_modes": ["rgb_array"]}

    @property
    def unwrapped(self) -> "OGBenchEnv":
        """This environment; OGBench's own is `env.env.unwrapped`.

        OGBench's has a method `compute_reward` on which Stable-Baselines3 would take this for a goal-conditioned
        environment, and it is not to be stepped around this one.
        """
        return self

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start an episode; without `seed`, the next one of the last seed."""
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        episode_seed = int(self._generator.integers(2**31))
        self._random_state.seed(episode_seed)
        self._inner_action_space.seed(episode_seed)
        with global_draws_from(self._random_state):
            observation, info = self.env.reset(seed=episode_seed, options=options)
        return self._cast(observation), _public(info)

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One step with the action clipped to the action space."""
        action = np.clip(action, self._inner_action_space.low, self._inner_action_space.high)
        if self._draws_in_step:
            with global_draws_from(self._random_state):
                outcome = self.env.step(action)
        else:
            outcome = self.env.step(action)
        observation, reward, terminated, truncated, info = outcome
        if self._sparse:
            reward = float(sparse_rewards(np.asarray(reward)))
        return self._cast(observation), float(reward), bool(terminated), bool(truncated), _public(info)

    def _cast(self, observation: Array) -> Array:
        return observation.astype(self.observation_space.dtype, copy=False)


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


def _public(info: dict[str, Any]) -> dict[str, Any]:
    """What a policy's user may see: the simulator's state and the goal observation stay out."""
    kept = {key: info[key] for key in _KEPT_INFOS if key in info}
    return {**kept, "is_success": bool(info["success"])} if "success" in info else kept


def _pin_action_space(env: Any) -> Box:
    """Give `env` one action space for good, and return it.

    Manipulation environments define `action_space` as a property that builds an unseeded Box at every access, and
    their `reset` samples from it to make the goal observation. An attribute of the instance cannot hide a property,
    but an attribute of a subclass can; so the instance moves to a subclass of its class.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # They give float64 bounds for a float32 Box, and Gymnasium says so.
        space = env.action_space
    pinned = Box(space.low, space.high, dtype=np.float32)
    if isinstance(getattr(type(env), "action_space", None), property):
        env.__class__ = type(type(env).__name__, (type(env),), {"action_space": pinned})
    else:
        env.action_space = pinned
    return pinned
