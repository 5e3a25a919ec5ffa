from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.spaces import Box
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor

from flowpolicies.data import make_env as make_by_address
from flowpolicies_ogbench import OGBenchEnv, make_env
from flowpolicies_ogbench.environment import sparse_rewards

pytestmark = pytest.mark.usefixtures("global_numpy_state")

POINTMAZE = "pointmaze-medium-navigate-singletask-task1-v0"
TELEPORT = "pointmaze-teleport-navigate-singletask-task1-v0"
CUBE = "cube-single-play-singletask-task2-v0"


@pytest.fixture(scope="module")
def cubes() -> tuple[OGBenchEnv, OGBenchEnv]:
    """Two manipulation environments, shared because it takes long to make them."""
    return make_env(CUBE), make_env(CUBE, seed=5)


def roll_out(env: OGBenchEnv, seed: int) -> list[Any]:
    """Everything that `reset` and `step` return in three episodes of a few random steps."""
    generator = np.random.default_rng(0)
    happened: list[Any] = []
    for episode in range(3):
        happened.append(env.reset(seed=seed if episode == 0 else None)[0])
        for _ in range(20):
            observation, *outcome, _ = env.step(generator.uniform(-1.2, 1.2, env.action_space.shape))
            happened.extend([observation, outcome])
    return happened


def assert_same(first: list[Any], second: list[Any]) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def simulator(env: OGBenchEnv) -> Any:
    return env.env.unwrapped


@pytest.mark.filterwarnings("error")
def test_pointmaze_passes_the_checker_of_sb3() -> None:
    check_env(make_env(POINTMAZE), skip_render_check=True)


@pytest.mark.filterwarnings("error")
def test_cube_passes_the_checker_of_sb3(cubes: tuple[OGBenchEnv, OGBenchEnv]) -> None:
    assert cubes[0].observation_space == Box(-np.inf, np.inf, (28,), np.float32)
    assert cubes[0].action_space == Box(-1.0, 1.0, (5,), np.float32)
    check_env(cubes[0], skip_render_check=True)


@pytest.mark.parametrize("name", [POINTMAZE, TELEPORT])
def test_mazes_are_reproducible(name: str) -> None:
    first, second = make_env(name), make_env(name)
    second.reset(seed=1)
    second.step(second.action_space.sample())
    assert_same(roll_out(first, seed=7), roll_out(second, seed=7))
    starts = [first.reset(seed=seed)[0].tolist() for seed in (7, 8)] + [first.reset()[0].tolist()]
    assert starts[0] != starts[1] != starts[2]


def test_teleports_are_reproducible() -> None:
    """Teleport mazes draw from NumPy's global random state during a step."""

    def ride(env: OGBenchEnv) -> list[Any]:
        env.reset(seed=3)
        arrivals = []
        for _ in range(10):
            simulator(env).set_xy(np.array(simulator(env)._teleport_info["teleport_in_xys"][0], float))
            env.step(np.zeros(2))
            arrivals.append(simulator(env).get_xy())
        return arrivals

    first, second = ride(make_env(TELEPORT)), ride(make_env(TELEPORT))
    assert_same(first, second)
    assert len(np.unique(first, axis=0)) > 1


def test_cubes_are_reproducible(cubes: tuple[OGBenchEnv, OGBenchEnv]) -> None:
    cubes[1].reset(seed=1)
    cubes[1].step(cubes[1].action_space.sample())
    assert_same(roll_out(cubes[0], seed=7), roll_out(cubes[1], seed=7))
    # OGBench makes the goal observation with samples of its action space, which has no seed of its own.
    np.testing.assert_array_equal(simulator(cubes[0])._cur_goal_ob, simulator(cubes[1])._cur_goal_ob)


def test_the_seed_of_make_env_is_that_of_the_first_reset() -> None:
    np.testing.assert_array_equal(make_env(POINTMAZE, seed=4).reset()[0], make_env(POINTMAZE).reset(seed=4)[0])


def test_resets_leave_the_samples_of_the_user_alone() -> None:
    env = make_env(POINTMAZE)
    env.action_space.seed(0)
    expected = Box(-1.0, 1.0, (2,), np.float32, seed=0)
    for _ in range(3):
        env.reset()
        np.testing.assert_array_equal(env.action_space.sample(), expected.sample())


def test_actions_are_clipped() -> None:
    first, second = make_env(POINTMAZE, seed=0), make_env(POINTMAZE, seed=0)
    first.reset()
    second.reset()
    np.testing.assert_array_equal(first.step(np.array([7.0, -0.5]))[0], second.step(np.array([1.0, -0.5]))[0])


def test_infos_hold_success_and_no_state_of_the_simulator(cubes: tuple[OGBenchEnv, OGBenchEnv]) -> None:
    maze = make_env(POINTMAZE, seed=0)
    assert maze.reset()[1] == {}
    info = maze.step(np.zeros(2))[4]
    assert sorted(info) == ["is_success", "success", "xy"]
    assert info["is_success"] is False
    assert cubes[0].reset()[1] == {}
    assert sorted(cubes[0].step(np.zeros(5))[4]) == ["is_success", "success"]


def test_reward_and_end_judge_the_state_before_the_step() -> None:
    env = make_env(POINTMAZE, seed=0)
    env.reset()
    goal = np.array(simulator(env).cur_goal_xy, float)
    simulator(env).set_xy(goal - [1.1, 0])
    _, reward, terminated, truncated, info = env.step(np.array([1.0, 0.0]))  # Into the goal.
    assert simulator(env).compute_success()
    assert (reward, terminated, truncated, info["is_success"]) == (-1.0, False, False, False)
    _, reward, terminated, truncated, info = env.step(np.array([-1.0, 0.0]))  # Out of the goal.
    assert not simulator(env).compute_success()
    assert (reward, terminated, truncated, info["is_success"]) == (0.0, True, False, True)


def test_time_limits_truncate() -> None:
    env = Monitor(make_env(POINTMAZE, seed=0, max_episode_steps=3))
    env.reset()
    ends = [env.step(np.zeros(2))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    assert make_env(POINTMAZE).get_wrapper_attr("_max_episode_steps") == 1000


def test_sparse_rewards_of_a_scene_with_several_parts() -> None:
    name = "puzzle-3x3-play-singletask-task1-v0"
    dense, sparse = make_env(name, seed=0), make_env(name, seed=0, sparse=True)
    dense.reset()
    sparse.reset()
    assert dense.step(np.zeros(5))[1] < -1
    assert sparse.step(np.zeros(5))[1] == -1
    for env in (dense, sparse):
        simulator(env)._target_button_states = simulator(env)._cur_button_states.copy()
        assert env.step(np.zeros(5))[1] == 0


def test_sparse_rewards() -> None:
    rewards = sparse_rewards(np.array([-3, -1, 0, -2], np.float32))
    np.testing.assert_array_equal(rewards, [-1, -1, 0, -1])
    assert rewards.dtype == np.float32
    with pytest.raises(ValueError, match="sparse=True needs rewards of at most 0, but the largest is 2"):
        sparse_rewards(np.array([0, 2.0]))


def test_render_modes() -> None:
    assert make_env(POINTMAZE).render_mode is None
    env = make_env(POINTMAZE, render_mode="rgb_array")
    assert env.render_mode == "rgb_array"
    assert env.metadata["render_modes"] == ["rgb_array"]
    with pytest.raises(ValueError, match="render_mode 'human' is not supported by OGBench; pass 'rgb_array' or None"):
        make_env(POINTMAZE, render_mode="human")


def test_images_that_cannot_be_rendered_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise mujoco.FatalError("no OpenGL")

    monkeypatch.setattr(gymnasium, "make", fail)
    with pytest.raises(OSError, match=r"to render images, which failed \(no OpenGL\)\. .* MUJOCO_GL=egl "):
        make_env("visual-cube-single-play-singletask-v0")
    with pytest.raises(mujoco.FatalError):
        make_env(CUBE)


def test_unknown_tasks_are_refused_at_the_reset() -> None:
    with pytest.raises(ValueError, match=r"task_id=9 is not a task of 'pointmaze-medium-v0'"):
        make_env("pointmaze-medium-navigate-v0").reset(options={"task_id": 9})
    with pytest.raises(ValueError, match="has a single task, which its name fixes, so task_id=3 cannot be chosen"):
        make_env(POINTMAZE).reset(options={"task_id": 3})


def test_an_option_that_there_is_not_is_named() -> None:
    message = r"'ogbench:cube-single-play-singletask-v0' has no option 'sparsex'\. Did you mean 'sparse'\?"
    with pytest.raises(ValueError, match=message):
        make_by_address("ogbench:cube-single-play-singletask-v0", sparsex=True)
