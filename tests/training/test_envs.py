from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from flowpolicies.data import RewardTransform
from flowpolicies.training import make_vec_env
from flowpolicies.training.envs import DividedVecEnv, OnlySpaces, TransformedRewards
from flowpolicies.tree import leaves


def test_one_environment_is_monitored_and_seeded() -> None:
    first, second, other = (make_vec_env("Pendulum-v1", seed=seed) for seed in (3, 3, 4))
    observation = first.reset()
    np.testing.assert_array_equal(observation, second.reset())
    assert (observation != other.reset()).any()
    for _ in range(200):
        *_, infos = first.step(np.zeros((1, 1), np.float32))
    assert infos[0]["episode"]["l"] == 200


@pytest.mark.slow
def test_several_environments_live_in_processes_and_begin_differently() -> None:
    env = make_vec_env("Pendulum-v1", n_envs=2, seed=3)
    try:
        observations = env.reset()
        np.testing.assert_array_equal(observations[:1], make_vec_env("Pendulum-v1", seed=3).reset())
        assert (observations[0] != observations[1]).any()
        assert len({process.pid for process in env.processes}) == 2
    finally:
        env.close()


class Named(gym.Env[Any, Any]):
    """Observes its name and its age in a Dict, and fails at an age."""

    observation_space = spaces.Dict(name=spaces.Discrete(9), age=spaces.Box(0, 99, (2,), np.float32))
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, name: int) -> None:
        self.name, self.age = name, 0

    def _seen(self) -> dict[str, Any]:
        return {"name": np.int64(self.name), "age": np.full(2, self.age, np.float32)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.age = 0
        return self._seen(), {"seed": seed}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if action[0] < 0:
            raise ArithmeticError(f"the environment {self.name} broke")
        self.age += 1
        return self._seen(), 10.0 * self.name + self.age, self.age == 2 + self.name, False, {"age": self.age}

    def double(self, number: int, plus: int = 0) -> int:
        return 2 * number + plus + self.name


@pytest.mark.slow
def test_divided_environments_are_those_of_one_process() -> None:
    makers = [partial(Named, name) for name in range(3)]
    with closing(DividedVecEnv(makers, 2)) as divided, closing(DummyVecEnv(makers)) as whole:
        assert len(divided.processes) == 2
        for env in (divided, whole):
            env.seed(4)
        same(divided.reset(), whole.reset())
        assert divided.reset_infos == whole.reset_infos == [{"seed": seed} for seed in (4, 5, 6)]
        for _ in range(5):
            steps = [env.step(np.ones((3, 1), np.float32)) for env in (divided, whole)]
            for found, expected in zip(*(step[:3] for step in steps), strict=True):
                same(found, expected)
            assert [info["age"] for info in steps[0][3]] == [info["age"] for info in steps[1][3]]
        divided.set_attr("name", 7, indices=[2])
        assert divided.get_attr("name") == [0, 1, 7]
        assert divided.env_method("double", 5, plus=1, indices=[2, 0]) == [18, 11]
        assert divided.env_is_wrapped(gym.Wrapper) == [False] * 3
        with pytest.raises(
            RuntimeError, match=r"failed in its process:(.|\n)*ArithmeticError: the environment 7 broke"
        ):
            divided.step(np.array([[1], [1], [-1]], np.float32))


def same(found: Any, expected: Any) -> None:
    for one, other in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_environments_of_evaluations_show_their_spaces_only() -> None:
    env = OnlySpaces(make_vec_env("Pendulum-v1", 3, processes=1), 1)
    assert (env.num_envs, env.observation_space.shape) == (1, (3,))
    with pytest.raises(RuntimeError, match="a model cannot collect in them"):
        env.reset()
    with pytest.raises(RuntimeError, match="a model cannot collect in them"):
        env.step_wait()


def test_wrong_requests_are_refused_before_any_process_starts() -> None:
    with pytest.raises(ValueError, match="the number of environments must be at least 1, got 0"):
        make_vec_env("Pendulum-v1", n_envs=0)
    with pytest.raises(ValueError, match="the number of processes must be at least 1, got 0"):
        make_vec_env("Pendulum-v1", n_envs=2, processes=0)
    with pytest.raises(ValueError, match="unknown environment source 'nowhere'"):
        make_vec_env("nowhere:x", n_envs=2)


def test_transformed_rewards_leave_the_reported_returns_alone() -> None:
    raw = make_vec_env("Pendulum-v1", 1, seed=0)
    changed = TransformedRewards(make_vec_env("Pendulum-v1", 1, seed=0), RewardTransform(name="cql_antmaze", scale=4.0))
    assert (raw.reset() == changed.reset()).all()
    for _ in range(200):
        actions = np.zeros((1, 1), np.float32)
        _, rewards, dones, infos = raw.step(actions)
        _, new_rewards, _, new_infos = changed.step(actions)
        np.testing.assert_allclose(new_rewards, 4 * rewards, rtol=1e-6)
    assert dones[0]
    assert new_infos[0]["episode"]["r"] == infos[0]["episode"]["r"]
