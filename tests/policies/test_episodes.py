"""Episodes that are played at once have the results that each has alone, to the last bit."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Space
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from flowpolicies import Evaluation, QFlow, evaluate
from flowpolicies.core import Draw, Network
from flowpolicies.networks import Critic, VelocityField
from flowpolicies.policies import FlowPolicy
from flowpolicies.policies.episodes import EpisodeNoise, batch_size
from flowpolicies.policies.evaluation import SeededEpisodes
from flowpolicies.policies.intervals import ROWS
from flowpolicies.samplers import (
    BestOfN,
    Guided,
    Integrate,
    MemorylessSDE,
    RobustGuided,
    Sampler,
    SoftmaxOfN,
    candidates,
)
from flowpolicies.training import make_vec_env


class Chaotic(gym.Env[Any, Any]):
    """A state that doubles every difference; episodes of 3 to 12 steps; the return adds up the actions."""

    action_space = Box(-1, 1, (2,), np.float32)
    spaces: ClassVar[dict[bool, Space[Any]]] = {
        False: Box(-np.inf, np.inf, (6,), np.float32),
        True: Dict(goal=Discrete(3, start=1), state=Box(-np.inf, np.inf, (6,), np.float32)),
    }

    def __init__(self, is_dict: bool = False) -> None:
        self.is_dict, self.observation_space = is_dict, self.spaces[is_dict]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state, self.age = self.np_random.normal(size=6), 0
        self.length = int(self.np_random.integers(3, 13))
        return self._seen(), {}

    def _seen(self) -> Any:
        state = self.state.astype(np.float32)
        return {"goal": np.int64(1 + self.age % 3), "state": state} if self.is_dict else state

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.age += 1
        self.state = np.mod(2 * self.state + np.tile(action, 3) + self.np_random.normal(size=6), 2.0) - 1
        return self._seen(), float(action.astype(np.float64).sum()), self.age >= self.length, False, {}


def make_policy(sampler: Sampler, is_dict: bool = False, width: int = 64, **options: Any) -> FlowPolicy:
    torch.manual_seed(0)
    networks = {
        "critic": Network(partial(Critic, hidden_dims=(width,) * 2)),
        "actor_flow": Network(partial(VelocityField, hidden_dims=(width,) * 3)),
    }
    space = Chaotic.spaces[is_dict]
    return FlowPolicy(space, Chaotic.action_space, networks=networks, sampler=sampler, seed=0, **options)


def environments(n: int, is_dict: bool = False) -> DummyVecEnv:
    return DummyVecEnv([partial(seeded, is_dict, rank, n) for rank in range(n)])


def seeded(is_dict: bool, rank: int, n: int) -> SeededEpisodes:
    return SeededEpisodes(Chaotic(is_dict), rank, n)


def results(found: Evaluation) -> list[Any]:
    return [found.returns.tolist(), found.lengths.tolist()]


CASES: dict[str, tuple[Sampler, dict[str, Any]]] = {
    "flow": (Integrate(steps=3), {}),
    "wide": (Integrate(steps=2), {"width": 512}),
    "guided": (Guided(steps=2), {}),
    "best of 4": (BestOfN(Integrate(steps=2), n=4), {}),
    "one of 32": (SoftmaxOfN(Integrate(steps=2), n=32), {}),
    "noise at each step": (MemorylessSDE(steps=3), {}),
    "chunks": (Integrate(steps=2), {"horizon": 4, "execute": 3}),
    "dict": (Integrate(steps=2), {"is_dict": True}),
}


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_results_do_not_depend_on_the_number_of_environments(case: str, deterministic: bool) -> None:
    sampler, options = CASES[case]
    policy, is_dict = make_policy(sampler, **options), options.get("is_dict", False)
    found = [
        results(evaluate(policy, environments(n, is_dict), 11, seed=5, deterministic=deterministic))
        for n in (1, 3, 8, 11)
    ]
    assert all(other == found[0] for other in found[1:])
    assert len(set(found[0][0])) == 11


def test_results_do_not_depend_on_how_the_environment_is_given() -> None:
    policy = make_policy(Integrate(steps=2))
    found = [
        results(evaluate(policy, env, 5, seed=5, **options))
        for env, options in ((Chaotic(), {}), (Chaotic, {}), (Chaotic, {"n_envs": 1}), (Chaotic, {"n_envs": 3}))
    ]
    assert all(other == found[0] for other in found[1:])


def test_normalized_environments_have_the_same_results_too() -> None:
    policy, found = make_policy(Integrate(steps=2)), []
    trained = VecNormalize(environments(2))
    trained.reset()
    for _ in range(10):
        trained.step(np.ones((2, 2), np.float32))
    for n in (1, 3, 8):
        env = VecNormalize(environments(n))
        env.obs_rms = trained.obs_rms
        found.append(results(evaluate(policy, env, 9, seed=5)))
    assert all(other == found[0] for other in found[1:])
    assert found[0] != results(evaluate(policy, environments(3), 9, seed=5))


def test_cut_episodes_have_the_same_results_too() -> None:
    policy = make_policy(Integrate(steps=2))
    found = [results(evaluate(policy, environments(n), 9, seed=5, max_steps=5)) for n in (1, 3, 8)]
    assert all(other == found[0] for other in found[1:])
    assert max(found[0][1]) == 5


def test_noise_depends_on_the_seed_and_not_on_earlier_draws() -> None:
    policy = make_policy(Integrate(steps=2))
    one, same, other = (results(evaluate(policy, Chaotic, 4, seed=seed)) for seed in (5, 5, 6))
    assert one == same != other
    free = [results(evaluate(policy, environments(2), 4)) for _ in range(2)]  # Without a seed nothing repeats.
    assert free[0] != free[1]


class Extractor(FlattenExtractor):
    """A feature extractor of a user."""


class Watched:
    """A policy of a user around one of ours; `at_once` says whether it acts in all rows at once."""

    def __init__(self, policy: FlowPolicy, at_once: bool) -> None:
        self.policy, self.at_once, self.calls = policy, at_once, 0

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        self.calls += 1
        if self.at_once:
            return self.policy.predict(observation, None, None, deterministic)
        return np.stack([self.policy.predict(row, deterministic=deterministic)[0] for row in observation]), None


def test_policies_around_ours_are_asked_for_their_actions() -> None:
    policy = make_policy(Integrate(steps=2))
    watched = Watched(policy, at_once=True)
    assert results(evaluate(watched, environments(3), 9, seed=5)) == results(evaluate(policy, Chaotic, 9, seed=5))
    assert watched.calls > 9
    rows = Watched(policy, at_once=False)
    assert len(evaluate(rows, environments(3), 9, seed=5)) == 9
    assert policy.predict(np.zeros((3, 6), np.float32))[0].shape == (3, 2)  # The episodes have ended.
    assert policy._episodes is None


def test_rows_that_may_depend_on_each_other_are_not_planned_together() -> None:
    def size(sampler: Any, policy: FlowPolicy) -> int:
        return batch_size(policy.specs, sampler, policy.encoder, policy.observation_space)

    policy = make_policy(Integrate())
    sizes = [size(sampler, policy) for sampler in (Integrate(), Guided(), BestOfN(n=4), BestOfN(n=32))]
    assert sizes == [ROWS, ROWS, ROWS // 4, 1]
    assert size(RobustGuided(), policy) == size(BestOfN(RobustGuided(), n=2), policy) == 1
    assert size(lambda nets, observations, noise: observations[..., :2], policy) == 1
    assert batch_size(policy.specs, Integrate(), "impala_small", Box(0, 255, (3, 64, 64), np.uint8)) == 1
    foreign = {"actor_flow": Network(lambda o, a: VelocityField(o, a))}
    assert batch_size(foreign, Integrate(), "impala_small", policy.observation_space) == 1
    assert candidates(BestOfN(SoftmaxOfN(n=3), n=5)) == 15
    options = {"features_extractor_class": Extractor}
    extracting = QFlow(env=Chaotic(), policy_kwargs=options, actor_hidden_dims=(4,), value_hidden_dims=(4,)).policy
    assert size(Integrate(), extracting) == 1


def test_draws_without_an_axis_of_episodes_are_refused() -> None:
    noise = EpisodeNoise(2, [torch.Generator(), None])
    drawn = noise.actions((2, 3))
    assert drawn.shape == (2, 3, 2)
    assert drawn[0].abs().min() > 0
    assert not drawn[1].any()
    with pytest.raises(ValueError, match=r"draws uniform of shape \[6\] for 2 observations; the first axis"):
        noise.draw(Draw("uniform", (6,)))


@pytest.mark.slow
@pytest.mark.parametrize(("n_envs", "processes"), [(3, 2), pytest.param(8, 3, marks=pytest.mark.more)])
def test_results_do_not_depend_on_the_number_of_processes(n_envs: int, processes: int) -> None:
    torch.manual_seed(0)
    networks = {"actor_flow": Network(partial(VelocityField, hidden_dims=(64,)))}
    env = gym.make("Pendulum-v1")
    policy = FlowPolicy(env.observation_space, env.action_space, networks=networks, sampler=Integrate(steps=2))
    found = []
    for number, split in ((1, 1), (n_envs, 1), (n_envs, processes)):
        with closing(make_vec_env("Pendulum-v1", number, processes=split)) as made:
            evaluation = evaluate(policy, made, 4, seed=5, max_steps=40)
        found.append(results(evaluation))
        assert evaluation.environment == "Pendulum-v1"
    assert all(other == found[0] for other in found[1:])
