"""Properties that hold for every family of environments, although OGBench's own environments differ in them."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from stable_baselines3.common.env_checker import check_env

from flowpolicies import evaluate
from flowpolicies_ogbench import make_env

pytestmark = [
    pytest.mark.usefixtures("global_numpy_state"),
    pytest.mark.filterwarnings("ignore:.*observation.*image"),  # Stable-Baselines3 warns of 6 channels.
]

STATES = (
    "pointmaze-medium-navigate-singletask-v0",
    "pointmaze-teleport-navigate-singletask-v0",
    "antmaze-medium-navigate-singletask-v0",
    "humanoidmaze-medium-navigate-singletask-v0",
    "antsoccer-arena-navigate-singletask-v0",
    "cube-double-play-singletask-v0",
    "scene-play-singletask-v0",
    "puzzle-3x3-play-singletask-v0",
)
GOALS = (
    "pointmaze-medium-navigate-v0",
    "antmaze-medium-navigate-oraclerep-v0",
    "humanoidmaze-medium-navigate-v0",
    "antsoccer-arena-navigate-oraclerep-v0",
    "cube-double-play-v0",
    "cube-double-play-oraclerep-v0",
    "scene-play-oraclerep-v0",
    "puzzle-3x3-play-oraclerep-v0",
    "powderworld-easy-play-v0",
)
PIXELS = ("visual-antmaze-medium-navigate-v0",)
MORE_PIXELS = (
    "visual-antmaze-medium-navigate-singletask-v0",
    "visual-cube-single-play-singletask-v0",
    "visual-scene-play-v0",
    "visual-puzzle-3x3-play-singletask-v0",
)
"""Images of robot arms are slow to render: `make more` has them. The maze of PIXELS has images of goals too."""
FAMILIES = [
    *STATES,
    *GOALS,
    *(pytest.param(name, marks=pytest.mark.slow) for name in PIXELS),
    *(pytest.param(name, marks=pytest.mark.more) for name in MORE_PIXELS),
]


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """Two environments of a family; the second one has been used before."""
    name = request.param
    try:
        state = np.random.get_state()
        first, second = make_env(name), make_env(name)
        second.reset(seed=1)
        second.step(second.action_space.sample())
        np.random.set_state(state)
    except Exception as error:
        if name.startswith("visual-"):
            pytest.skip(f"images cannot be rendered here ({error}); try MUJOCO_GL=egl")
        raise
    yield first, second
    first.close()
    second.close()


def act(env: gymnasium.Env[Any, Any], generator: np.random.Generator) -> Any:
    if isinstance(env.action_space, Discrete):
        return int(generator.integers(env.action_space.n))
    assert isinstance(env.action_space, Box)
    return generator.uniform(-1.2, 1.2, env.action_space.shape)


def roll_out(env: gymnasium.Env[Any, Any], steps: int) -> list[Any]:
    generator = np.random.default_rng(0)
    return [env.step(act(env, generator)) for _ in range(steps)]


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert_same(value, second[key])
    elif isinstance(first, list | tuple):
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        np.testing.assert_array_equal(first, second)


def test_the_seed_fixes_the_episode(pair: tuple[Any, Any]) -> None:
    first, second = pair
    assert_same(first.reset(seed=7), second.reset(seed=7))
    assert_same(roll_out(first, 6), roll_out(second, 6))
    starts = [first.reset(seed=seed)[0] for seed in (7, 8)]
    with pytest.raises(AssertionError):
        assert_same(starts[0], starts[1])


def test_later_episodes_do_not_depend_on_what_the_policy_did(pair: tuple[Any, Any]) -> None:
    first, second = pair
    first.reset(seed=7)
    second.reset(seed=7)
    roll_out(first, 5)
    for _ in range(2):
        assert_same(first.reset(), second.reset())


def test_observations_and_infos_are_public(pair: tuple[Any, Any]) -> None:
    env = pair[0]
    observation, info = env.reset(seed=0)
    has_goals = isinstance(env.observation_space, Dict)
    after, reward, terminated, truncated, later = env.step(act(env, np.random.default_rng(0)))
    for found in (observation, after):
        for key, part in found.items() if has_goals else [("", found)]:
            space = env.observation_space[key] if has_goals else env.observation_space
            assert part.dtype == space.dtype
            assert part.dtype in (np.float32, np.uint8)
            assert part.shape == space.shape
            assert part.dtype != np.uint8 or part.shape[0] in (3, 6)  # Channels first.
    assert isinstance(reward, float)
    assert reward <= 0
    assert (type(terminated), type(truncated), type(later["is_success"])) == (bool, bool, bool)
    assert set(later) <= {"success", "is_success", "xy", "task_id"}
    assert set(info) <= {"task_id"}
    assert ("task_id" in info) == has_goals
    if has_goals:
        np.testing.assert_array_equal(observation["desired_goal"], after["desired_goal"])


def test_the_checker_of_sb3_passes(pair: tuple[Any, Any]) -> None:
    check_env(pair[0], skip_render_check=True)


@pytest.mark.parametrize("name", ["antsoccer-arena-navigate-v0", "cube-double-play-oraclerep-v0"])
def test_tasks_are_chosen(name: str) -> None:
    env, fixed = make_env(name), make_env(name, task_id=3)
    tasks = {env.reset(seed=seed)[1]["task_id"] for seed in range(20)}
    assert tasks == {1, 2, 3, 4, 5}
    goals = []
    for task in (1, 2, 3):
        observation, info = env.reset(seed=0, options={"task_id": task})
        assert info["task_id"] == task
        goals.append(observation["desired_goal"])
    assert not np.allclose(goals[0], goals[1], atol=1e-3)
    for seed in (0, 5):
        assert fixed.reset(seed=seed)[1]["task_id"] == 3
    np.testing.assert_array_equal(fixed.reset(seed=0)[0]["desired_goal"], goals[2])
    with pytest.raises(ValueError, match=rf"task_id=6 is not a task of '{name}': its tasks are 1 to 5\."):
        make_env(name, task_id=6)
    with pytest.raises(ValueError, match=r"has a single task, which its name fixes, so task_id=1 cannot"):
        make_env("cube-double-play-singletask-v0", task_id=1)


def test_the_goal_is_reached_after_the_step() -> None:
    env: Any = make_env("pointmaze-medium-navigate-oraclerep-v0", task_id=1)
    observation, _ = env.reset(seed=0)
    simulator = env.env.unwrapped
    np.testing.assert_allclose(observation["desired_goal"], simulator.cur_goal_xy, rtol=1e-6)
    simulator.set_xy(observation["desired_goal"] - np.array([1.1, 0]))
    after, reward, terminated, _, info = env.step(np.array([1.0, 0.0]))
    assert (reward, terminated, info["is_success"]) == (0.0, True, True)
    np.testing.assert_array_equal(after["achieved_goal"], after["observation"])


class _Restless:
    """A policy that gives another random action at every call."""

    def __init__(self, seed: int, strength: float, env: gymnasium.Env[Any, Any]) -> None:
        self.generator, self.strength, self.env = np.random.default_rng(seed), strength, env
        self.starts: list[Any] = []

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        if episode_start[0]:
            self.starts.append({key: part.copy() for key, part in observation.items()})
        shape = self.env.action_space.shape
        return self.strength * self.generator.uniform(-1, 1, (1, *shape)), None


def test_evaluations_of_all_policies_see_the_same_episodes() -> None:
    env = make_env("pointmaze-teleport-navigate-v0", max_episode_steps=7)
    starts = []
    for seed, strength in ((0, 1.0), (1, 0.1)):
        policy = _Restless(seed, strength, env)
        evaluate(policy, env, 4, seed=5)
        starts.append(policy.starts[:4])
    assert_same(starts[0], starts[1])
    assert len({start["desired_goal"].tobytes() for start in starts[0]}) == 4
