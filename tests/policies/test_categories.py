"""Discrete, MultiDiscrete and MultiBinary observations, as in Stable-Baselines3: networks see one-hot vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import VecNormalize
from tiny import tiny

from flowpolicies import BC, FQL, FlowPolicy, QFlow, SteeredEnv, evaluate
from flowpolicies.data import TransitionDataset
from flowpolicies.networks import Critic, ObservationEncoder, ObservationPart
from flowpolicies.spaces.layout import flatten_arrays, observation_dim, observation_layout, unflatten

SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(5),
    "start": spaces.Discrete(5, start=-2),
    "multi": spaces.MultiDiscrete([3, 4]),
    "multi2d": spaces.MultiDiscrete(np.array([[3, 4], [2, 2]]), start=np.array([[1, 0], [0, -3]])),
    "binary": spaces.MultiBinary(4),
    "binary2d": spaces.MultiBinary((2, 3)),
    "dict": spaces.Dict(
        z=spaces.Discrete(4, start=1),
        b=spaces.MultiBinary(2),
        a=spaces.Box(-1, 1, (2,)),
        m=spaces.MultiDiscrete([2, 3]),
    ),
    "image": spaces.Dict(z=spaces.Discrete(4), camera=spaces.Box(0, 255, (16, 16, 3), np.uint8)),
}


class Sampled(gymnasium.Env[Any, Any]):
    """Observes samples of a space, and rewards small actions."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space, self.age = space, spaces.Box(-1, 1, (1,)), 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.age = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.age += 1
        return self.observation_space.sample(), -abs(float(action[0])), False, self.age == 10, {}


def sampled(space: spaces.Space[Any], n: int) -> Any:
    space.seed(0)
    rows = [space.sample() for _ in range(n)]
    return (
        {key: np.stack([row[key] for row in rows]) for key in rows[0]} if isinstance(rows[0], dict) else np.stack(rows)
    )


def first(observations: Any) -> Any:
    return {k: v[0] for k, v in observations.items()} if isinstance(observations, dict) else observations[0]


def arrays(observations: Any, n: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "observations": observations,
        "actions": rng.uniform(-1, 1, (n, 1)).astype(np.float32),
        "rewards": rng.normal(size=n).astype(np.float32),
        "next_observations": observations,
    }


def assert_acts_alike(model: FQL | QFlow, folder: Path) -> None:
    """A zip, a policy file, one observation and a batch lead to the same actions."""
    observations = model.get_env().reset() if model.env.num_envs > 1 else sampled(model.observation_space, 3)
    expected = model.predict(observations, deterministic=True)[0]
    assert expected.shape == (len(expected), 1)
    np.testing.assert_allclose(model.predict(first(observations), deterministic=True)[0], expected[0], rtol=1e-5)
    model.save(folder / "model")
    model.policy.save(folder / "policy")
    for loaded in (type(model).load(folder / "model"), FlowPolicy.load(folder / "policy", device="cpu")):
        np.testing.assert_allclose(loaded.predict(observations, deterministic=True)[0], expected, rtol=1e-5)
        assert str(loaded.observation_space) == str(model.observation_space)


@pytest.mark.parametrize("kind", SPACES)
def test_online_learning_files_and_evaluation(kind: str, tmp_path: Path) -> None:
    env = make_vec_env(lambda: Sampled(SPACES[kind]), n_envs=2)
    model = tiny(QFlow, env=env, learning_starts=6, encoder="impala_debug").learn(24)
    assert model._n_updates > 0
    assert_acts_alike(model, tmp_path)
    assert model.evaluate(episodes=3).lengths.tolist() == [10, 10, 10]
    assert len(evaluate(model.policy, Sampled(SPACES[kind]), episodes=1)) == 1


@pytest.mark.parametrize("kind", [kind for kind in SPACES if kind != "image"])
def test_offline_learning_from_arrays_of_integers(kind: str, tmp_path: Path) -> None:
    data = arrays(sampled(SPACES[kind], 60), 60)
    dataset = TransitionDataset.from_arrays(**data, terminations=np.arange(60) % 20 == 19)  # Their space is inferred.
    model = tiny(FQL, env=Sampled(SPACES[kind]), dataset=dataset).learn_offline(3)
    assert_acts_alike(model, tmp_path)
    model.learn(12)


@pytest.mark.parametrize("kind", ["start", "multi2d", "binary"])
def test_offline_learning_without_an_environment(kind: str, tmp_path: Path) -> None:
    ends = (np.arange(60) % 20 == 19).astype(np.float32)
    data = arrays(sampled(SPACES[kind], 60), 60) | {"masks": 1 - ends, "terminals": ends}
    dataset = TransitionDataset.trusted(
        data,
        observation_space=SPACES[kind],
        action_space=spaces.Box(-1, 1, (1,)),
        provenance={"name": kind},
        fingerprint="",
        episode_ends=np.flatnonzero(ends),
    )
    assert_acts_alike(tiny(FQL, dataset=dataset).learn_offline(3), tmp_path)


@pytest.mark.parametrize("kind", ["discrete", "multi", "binary"])
def test_networks_see_what_those_of_stable_baselines3_see(kind: str) -> None:
    space, observations = SPACES[kind], sampled(SPACES[kind], 20)
    parts = [ObservationPart(*entry[1:]) for entry in observation_layout(space)]
    encoder = ObservationEncoder(parts)
    found = encoder(flatten_arrays(space, observations))
    assert found.dtype == torch.float32
    assert torch.equal(found, preprocess_obs(torch.as_tensor(observations), space))
    assert encoder.out_dim == found.shape[-1]


def test_a_start_is_subtracted_and_a_dict_is_concatenated_in_its_order() -> None:
    space = spaces.Dict(z=spaces.Discrete(3, start=-1), a=spaces.Box(-1, 1, (1,)), b=spaces.MultiBinary(2))
    encoder = ObservationEncoder([ObservationPart(*entry[1:]) for entry in observation_layout(space)])
    observations = {
        "z": np.array([-1, 1]),
        "a": np.array([[0.5], [0.25]], np.float32),
        "b": np.array([[0, 1], [1, 1]], np.int8),
    }
    found = encoder(flatten_arrays(space, observations)).tolist()
    assert found == [[1, 0, 0, 0.5, 0, 1], [0, 0, 1, 0.25, 1, 1]]


def test_a_category_takes_one_number_in_the_replay_buffer_however_many_there_are() -> None:
    model = tiny(FQL, env=Sampled(spaces.Discrete(500)), learning_starts=2).learn(6)
    assert model.transitions.online.columns["observations"].shape[1] == observation_dim(model.observation_space) == 1
    critic = model.policy.networks["critic"]
    assert critic.encoder.out_dim == 500
    assert isinstance(critic.head, Critic)


@pytest.mark.parametrize("kind", SPACES)
def test_flat_observations_are_unflattened_to_what_they_were(kind: str) -> None:
    space, observations = SPACES[kind], sampled(SPACES[kind], 7)
    found = unflatten(space, flatten_arrays(space, observations))
    for key, part in space.spaces.items() if isinstance(space, spaces.Dict) else [(None, space)]:
        mine, theirs = (found, observations) if key is None else (found[key], observations[key])
        np.testing.assert_array_equal(mine, theirs)
        assert not isinstance(part, spaces.Discrete | spaces.MultiDiscrete) or mine.dtype == np.int64


def test_normalised_numbers_beside_categories() -> None:
    env = VecNormalize(make_vec_env(lambda: Sampled(SPACES["dict"]), n_envs=2), norm_obs_keys=["a"])
    model = tiny(FQL, env=env, learning_starts=6).learn(24)
    batch = model.transitions.sample(16, env=env)
    assert set(batch.observations[:, 0].tolist()) <= {1.0, 2.0, 3.0, 4.0}
    assert model.evaluate(episodes=2).lengths.tolist() == [10, 10]


@pytest.mark.parametrize("wrong", [5, -1, 0.5])
def test_predict_refuses_other_numbers(wrong: float) -> None:
    model = tiny(FQL, env=Sampled(spaces.Discrete(5)))
    with pytest.raises(ValueError, match="must be integers from 0 to 4 in element 0, but row 0 has"):
        model.predict(np.array([wrong]))
    with pytest.raises(ValueError, match="has the shape"):
        model.predict(np.eye(5))


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 2]), spaces.MultiBinary(2)], ids=str)
def test_actions_of_such_spaces_stay_refused(space: spaces.Space[Any]) -> None:
    env = Sampled(spaces.Discrete(5))
    env.action_space = space
    with pytest.raises(ValueError, match=r"acts in continuous spaces .* use an algorithm made for them"):
        tiny(FQL, env=env)


def test_a_steered_environment_has_the_categories_of_the_policy() -> None:
    policy = tiny(BC, env=Sampled(spaces.Discrete(5))).policy
    env = SteeredEnv(Sampled(spaces.Discrete(5)), policy)
    env.reset(seed=0)
    assert env.step(np.zeros(1, np.float32))[0] in env.observation_space
    with pytest.raises(ValueError, match=r"the policy observes Discrete\(5\), the environment shows Discrete\(4\)\."):
        SteeredEnv(Sampled(spaces.Discrete(4)), policy)
