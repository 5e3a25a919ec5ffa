"""Evaluations that can be compared with each other."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from stable_baselines3.common.vec_env import DummyVecEnv

from flowpolicies import evaluate
from flowpolicies.policies.evaluation import SeededEpisodes


class Wasteful(gymnasium.Env[Any, Any]):
    """Episodes begin at random, and use up randomness as long as the actions want them to last."""

    observation_space = Box(0, 1, (1,), np.float64)
    action_space = Box(1, 9, (1,), np.float64)

    def __init__(self) -> None:
        self.starts: list[float] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.starts.append(self.np_random.random())
        self.age = 0
        return np.array(self.starts[-1:]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.np_random.random()
        self.age += 1
        return np.zeros(1), self.starts[-1] if self.age == 1 else 0.0, self.age >= action[0], False, {}


class Lasting:
    """Wants episodes of a length; of one that depends on the start, if it is 0."""

    def __init__(self, length: int) -> None:
        self.length = length

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        state = np.where(episode_start[:, None], 1 + np.floor(8 * observation), 0 if state is None else state)
        return (np.full((len(observation), 1), self.length) if self.length else state), state


@pytest.mark.parametrize("n_envs", [1, 3])
def test_all_policies_get_the_same_episodes_in_the_same_order(n_envs: int) -> None:
    found = []
    for length in (1, 7, 0):
        envs = [Wasteful() for _ in range(n_envs)]
        vec_env = DummyVecEnv([lambda env=env: SeededEpisodes(env) for env in envs])  # type: ignore[misc]
        found.append(evaluate(Lasting(length), vec_env, 7, seed=3))
    np.testing.assert_array_equal(found[0].lengths, 1)
    np.testing.assert_array_equal(found[1].lengths, 7)
    assert len(set(found[2].lengths)) > 2  # Episodes of several environments end in another order than they began.
    for other in found[1:]:
        np.testing.assert_array_equal(other.returns, found[0].returns)
    assert len(set(found[0].returns)) == 7


def test_the_list_of_episodes_does_not_depend_on_the_number_of_environments() -> None:
    found = []
    for n_envs in (1, 2, 3):
        makers = [lambda rank=rank, n=n_envs: SeededEpisodes(Wasteful(), rank, n) for rank in range(n_envs)]
        found.append(evaluate(Lasting(0), DummyVecEnv(makers), 7, seed=3))  # type: ignore[arg-type]
    for other in found[1:]:
        np.testing.assert_array_equal(other.returns, found[0].returns)
        np.testing.assert_array_equal(other.lengths, found[0].lengths)


def test_an_environment_among_several_can_be_seeded_alone() -> None:
    env = SeededEpisodes(Wasteful(), rank=2, n_envs=3)
    starts = [env.reset(seed=0)[0] for _ in range(2)]
    np.testing.assert_array_equal(*starts)


def test_one_environment_needs_no_wrapper() -> None:
    found = [evaluate(Lasting(length), Wasteful(), 5, seed=3).returns for length in (1, 4)]
    np.testing.assert_array_equal(*found)
    assert not np.array_equal(found[0], evaluate(Lasting(1), Wasteful(), 5, seed=4).returns)


def test_without_a_seed_nothing_is_seeded() -> None:
    env = Wasteful()
    env.reset(seed=0)
    expected = np.random.Generator(np.random.PCG64())
    expected.bit_generator.state = env.np_random.bit_generator.state
    evaluate(Lasting(1), env, 1)
    assert env.starts[1] == expected.random()
