"""Evaluations that can be compared with each other."""

import warnings
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Space
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize

from flowpolicies import evaluate
from flowpolicies.policies.evaluation import Interval, SeededEpisodes


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
        vec_env = DummyVecEnv([lambda env=env: SeededEpisodes(env) for env in envs])
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
        found.append(evaluate(Lasting(0), DummyVecEnv(makers), 7, seed=3))
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


IMAGE, TURNED = Box(0, 255, (64, 48, 3), np.uint8), Box(0, 255, (3, 64, 48), np.uint8)
TWO, THREE = Box(-1, 1, (2,)), Box(-1, 1, (3,))


@pytest.mark.parametrize(
    ("own", "theirs", "fits"),
    [
        (THREE, Box(-9, 9, (3,)), True),
        (THREE, TWO, False),
        (TURNED, IMAGE, True),  # Policies turn images themselves.
        (IMAGE, Box(0, 255, (64, 48, 1), np.uint8), False),
        (Dict(a=TWO, b=TURNED), Dict(a=TWO, b=IMAGE), True),
        (Dict(a=TWO), Dict(a=THREE), False),
        (Dict(a=TWO), Dict(a=TWO, b=TWO), False),
        (Dict(a=TWO), TWO, False),
        (TWO, Dict(a=TWO), False),
        (TWO, Discrete(2), False),
        (Discrete(2), Discrete(2), True),
        (Discrete(2), Discrete(3), False),
    ],
)
@pytest.mark.parametrize("kind", ["observation", "action"])
def test_the_spaces_of_a_policy_are_those_of_the_environment(
    kind: str, own: Space[Any], theirs: Space[Any], fits: bool
) -> None:
    env, policy = Wasteful(), Lasting(1)
    setattr(policy, f"{kind}_space", own)
    setattr(env, f"{kind}_space", theirs)
    env.reset = env.step = None
    error, message = (TypeError, "not callable") if fits else (ValueError, f"trained for {kind}s in .*, but those of")
    with pytest.raises(error, match=message) as found:
        evaluate(policy, env, 1)
    assert fits or (f" in {own}, " in str(found.value) and f" are in {theirs}" in str(found.value))
    assert (", which is discrete" in str(found.value)) == (isinstance(theirs, Discrete) and not fits)


def test_an_address_is_an_environment_and_other_things_are_not() -> None:
    policy = SimpleNamespace(predict=lambda observations, *_: (np.zeros((len(observations), 1), np.float32), None))
    assert evaluate(policy, "Pendulum-v1", 1, seed=0).lengths == [200]
    with pytest.raises(TypeError, match=r"env must be an environment, an address such as 'Pendulum-v1', .* got 5"):
        evaluate(policy, 5, 1)
    with pytest.raises(TypeError, match=r"must have Stable-Baselines3's predict\(\), got Wasteful"):
        evaluate(Wasteful(), Wasteful(), 1)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((-1170.4, -1222.0, -1118.6), "-1170 [-1222, -1119]"),
        ((0.51234, 0.4, 1.0), "0.512 [0.4, 1]"),
        ((-147.6, -158.6, -99.96), "-148 [-159, -100]"),
        ((1e7, 54321.0, 2e6), "1e+07 [54321, 2e+06]"),
    ],
)
def test_returns_can_be_told_apart(numbers: tuple[float, float, float], text: str) -> None:
    assert str(Interval(*numbers)) == text


class Paid(gymnasium.Env[Any, Any]):
    """Pays -100 per step; ends after `length` steps, or never."""

    observation_space, action_space = Box(-9, 9, (1,), np.float32), Box(-1, 1, (1,), np.float32)

    def __init__(self, length: int | None = 7) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.age = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.age += 1
        return self.observation_space.sample(), -100.0, self.age == self.length, False, {"is_success": True}


class Still:
    """Does nothing."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        return np.zeros((len(observation), 1)), state


def normalized(n_envs: int = 2) -> VecNormalize:
    env = VecNormalize(DummyVecEnv([Paid] * n_envs))
    env.reset()
    for _ in range(20):
        env.step(np.zeros((n_envs, 1)))
    return env


def statistics(env: VecNormalize) -> list[float]:
    rms = (env.obs_rms, env.ret_rms)
    return [float(value) for found in rms for value in (found.mean.sum(), found.var.sum(), found.count)]


@pytest.mark.parametrize("wrap", [lambda env: env, VecMonitor, lambda env: VecFrameStack(env, 2)])
def test_returns_are_those_of_the_task_and_statistics_stay(wrap: Any) -> None:
    inner = normalized()
    env, before, running = wrap(inner), statistics(inner), inner.returns.copy()
    assert np.abs(inner.step(np.zeros((2, 1)))[1]).max() < 20  # What VecNormalize shows instead of -100.
    before, running = statistics(inner), inner.returns.copy()
    for training in (True, False):
        inner.training = training
        found = evaluate(Still(), env, 3)
        assert found.returns.tolist() == [-700.0] * 3
        assert statistics(inner) == before
        np.testing.assert_array_equal(inner.returns, running)
        assert inner.training is training


def test_statistics_come_back_after_an_error() -> None:
    env, broken = normalized(), SimpleNamespace(predict=lambda *args: 1 / 0)
    before = statistics(env)
    with pytest.raises(ZeroDivisionError):
        evaluate(broken, env, 1)
    assert env.training
    assert statistics(env) == before


def test_an_episode_without_end_is_announced_and_can_be_cut() -> None:
    with pytest.warns(UserWarning, match=r"not ended after 10000 steps.*pass max_steps=") as said:
        found = evaluate(Still(), Paid(10_005), 1)
    assert found.lengths.tolist() == [10_005]
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate(Still(), Paid(None), 3, max_steps=5)
        assert len(evaluate(Still(), Paid(9_999), 1)) == 1
    assert (found.lengths.tolist(), found.returns.tolist()) == ([5] * 3, [-500.0] * 3)
    assert found.successes.tolist() == [1] * 3
    with pytest.raises(ValueError, match="max_steps is a number of steps and must be at least 1"):
        evaluate(Still(), Paid(), 1, max_steps=0)


@pytest.mark.parametrize("max_steps", [3, 4, 7, 100])
def test_cut_episodes_start_as_uncut_ones_for_any_number_of_environments(max_steps: int) -> None:
    """Episodes of different lengths, so that environments are cut, end, and wait at different times."""
    starts = []
    for n in (1, 2, 3, 5):
        envs = [SeededEpisodes(Wasteful(), rank=i, n_envs=n) for i in range(n)]
        env = DummyVecEnv([lambda env=env: env for env in envs])
        found = evaluate(Lasting(0), env, 12, seed=4, max_steps=max_steps)
        assert found.lengths.max() <= max_steps
        starts.append((found.returns.tolist(), found.lengths.tolist()))
    assert starts == [starts[0]] * 4
    whole = evaluate(Lasting(0), DummyVecEnv([lambda: SeededEpisodes(Wasteful())]), 12, seed=4)
    assert starts[0][0] == whole.returns.tolist()  # The start is the reward of the first step.
    assert starts[0][1] == np.minimum(whole.lengths, max_steps).tolist()


def test_an_evaluation_knows_its_environment_and_seed() -> None:
    policy = SimpleNamespace(predict=lambda observation, *_: (np.zeros((len(observation), 1)), None))
    by_address = evaluate(policy, "Pendulum-v1", 1, seed=3)
    assert (by_address.environment, by_address.seed) == ("Pendulum-v1", 3)
    env = gymnasium.make("Pendulum-v1")
    assert evaluate(policy, env, 1, seed=3).environment == "Pendulum-v1"
    unseeded = evaluate(policy, DummyVecEnv([lambda: env]), 1)
    assert (unseeded.environment, unseeded.seed) == ("Pendulum-v1", None)
    assert evaluate(Lasting(1), DummyVecEnv([Wasteful]), 1).environment is None
