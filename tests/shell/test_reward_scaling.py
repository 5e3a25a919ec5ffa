"""Rewards scaled by what the dataset measures: offline and online alike, saved with the model, and never in results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from flowpolicies import FQL, IQL, FlowPolicy, QFlow
from flowpolicies.data import TransitionDataset
from flowpolicies.diagnostics.evidence import Evidence
from flowpolicies.diagnostics.scores.values import critics_of, initial_value, td_error
from flowpolicies.policies.policy_file import read_policy, write_policy

SMALL: dict[str, Any] = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,), "batch_size": 16, "seed": 0}
SMALL |= {"device": "cpu", "flow_steps": 2}
EPISODE = 10


def dataset(rewards: Any, ends: Any = None) -> TransitionDataset:
    """Episodes of ten steps in Pendulum's spaces, with given rewards."""
    rewards = np.asarray(rewards, np.float32)
    n, rng = len(rewards), np.random.default_rng(0)
    return TransitionDataset.from_arrays(
        rng.normal(size=(n, 3)),
        rng.uniform(-2, 2, (n, 1)),
        rewards,
        rng.normal(size=(n, 3)),
        terminations=np.arange(n) % EPISODE == EPISODE - 1 if ends is None else ends,
        observation_space=gym.make("Pendulum-v1").observation_space,
        action_space=gym.make("Pendulum-v1").action_space,
    )


@pytest.fixture
def rewards() -> np.ndarray:
    return np.random.default_rng(1).normal(-3, 2, 60).astype(np.float32)


def size_of(rewards: np.ndarray, scaling: str) -> float:
    returns = rewards.reshape(-1, EPISODE).sum(1)
    sizes = {"standard": rewards.std(), "max_abs": np.abs(rewards).max(), "return_range": np.ptp(returns), "none": 1.0}
    return float(sizes[scaling])


@pytest.mark.parametrize("scaling", ["none", "standard", "max_abs", "return_range"])
@pytest.mark.parametrize("options", [{}, {"n_steps": 3}, {"horizon": 2}])
def test_rewards_of_batches_are_multiplied_by_one_number(
    scaling: str, options: dict[str, Any], rewards: np.ndarray
) -> None:
    plain = FQL(dataset=dataset(rewards), **SMALL, **options)
    model = FQL(dataset=dataset(rewards), reward_scaling=scaling, reward_gain=3.0, **SMALL, **options)
    assert model.reward_factor == pytest.approx(3 / size_of(rewards, scaling), rel=1e-5)
    found, raw = (one.transitions.sample(32) for one in (model, plain))
    torch.testing.assert_close(found.rewards, model.reward_factor * raw.rewards)
    for name in ("observations", "actions", "discounts", "valid"):
        assert torch.equal(getattr(found, name), getattr(raw, name))


def test_training_equals_training_on_rewards_that_were_scaled_by_hand(rewards: np.ndarray) -> None:
    ours = QFlow(dataset=dataset(rewards), reward_scaling="standard", **SMALL).learn_offline(10)
    by_hand = QFlow(dataset=dataset(rewards / rewards.std()), **SMALL).learn_offline(10)
    pairs = zip(ours.policy.networks.parameters(), by_hand.policy.networks.parameters(), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_rewards_that_are_collected_are_scaled_as_those_of_the_dataset_and_once(rewards: np.ndarray) -> None:
    data = dataset(rewards)
    model = FQL("FlowPolicy", "Pendulum-v1", dataset=data, reward_scaling="max_abs", learning_starts=5, **SMALL)
    factor = model.reward_factor
    model.learn(20)
    assert model.reward_factor == factor
    assert model.transitions.online is not None
    collected = model.transitions.online.columns["rewards"][:20].flatten().numpy()
    assert np.abs(collected).max() > 1  # The rewards of the environment as they are.
    known = factor * np.concatenate([rewards, collected])
    found = model.transitions.sample(400).rewards.numpy()
    assert np.isin(found.round(5), known.astype(np.float32).round(5)).all()
    assert np.isin(found.round(5), (factor * collected).astype(np.float32).round(5)).any()


def test_the_factor_is_saved_with_model_policy_and_buffer(rewards: np.ndarray, tmp_path: Path) -> None:
    data = dataset(rewards)
    model = FQL("FlowPolicy", "Pendulum-v1", dataset=data, reward_scaling="standard", learning_starts=5, **SMALL)
    model.learn(10)
    model.save(tmp_path / "model")
    model.policy.save(tmp_path / "policy.safetensors")
    model.save_replay_buffer(tmp_path / "buffer")
    factor = model.reward_factor
    assert factor == pytest.approx(1 / rewards.std(), rel=1e-5)
    assert FlowPolicy.load(tmp_path / "policy.safetensors").reward_factor == factor
    loaded = FQL.load(tmp_path / "model", dataset=dataset(100 * rewards))  # Other data do not change the unit.
    loaded.load_replay_buffer(tmp_path / "buffer")
    for one in (loaded, loaded.policy, loaded.transitions):
        assert one.reward_factor == factor
    # The buffer of a model with a factor brings none to a model without.
    plain = FQL("FlowPolicy", "Pendulum-v1", **SMALL)
    plain.load_replay_buffer(tmp_path / "buffer")
    assert plain.transitions.reward_factor == 1


def test_returns_that_are_reported_are_those_of_the_environment(rewards: np.ndarray) -> None:
    model = FQL("FlowPolicy", "Pendulum-v1", dataset=dataset(rewards), reward_gain=1e-6, learning_starts=500, **SMALL)
    model.learn(200)
    assert model.ep_info_buffer is not None
    assert model.ep_info_buffer[0]["r"] < -10  # An episode of Pendulum.


def test_diagnostics_compare_values_in_the_unit_of_the_rewards(rewards: np.ndarray) -> None:
    data = dataset(rewards)
    model = FQL(dataset=data, reward_gain=100.0, **SMALL)
    network: Any = model.policy.networks["critic"]
    observations, actions = torch.from_numpy(data.observations[:5]), torch.from_numpy(data.actions[:5] / 2)
    expected = network(observations, actions).detach().numpy() / 100
    np.testing.assert_allclose(critics_of(model)(data.observations[:5], data.actions[:5]), expected, rtol=1e-4)
    np.testing.assert_allclose(Evidence(model).values(observations, actions), expected, rtol=1e-4)
    # With values of nearly 0, the TD error is that of the rewards of the data, in their unit.
    assert abs(initial_value(model, data)) < 0.5
    assert td_error(model, data) == pytest.approx(float(np.square(rewards).mean()), rel=0.2)


def test_of_a_dataset_that_measures_nothing_the_error_says_why() -> None:
    cases = {"standard": [-1.0] * 20, "max_abs": [0.0] * 20, "return_range": [-1.0, 1.0] * 10}
    words = {"standard": "all rewards are equal", "max_abs": "all rewards are 0", "return_range": "the same return"}
    for scaling, given in cases.items():
        with pytest.raises(ValueError, match=rf"reward_scaling='{scaling}' would divide by zero .*{words[scaling]}"):
            FQL(dataset=dataset(given), reward_scaling=scaling, **SMALL)
    with pytest.raises(ValueError, match=r"pass dataset= to FQL.*reward_gain"):
        FQL("FlowPolicy", "Pendulum-v1", reward_scaling="standard", **SMALL)
    with pytest.raises(ValueError, match="reward_scaling must be one of 'none', 'standard', 'max_abs'"):
        FQL(dataset=dataset([1.0, 2.0] * 10), reward_scaling="min_max", **SMALL)
    with pytest.raises(ValueError, match="reward_gain must be"):
        FQL(dataset=dataset([1.0, 2.0] * 10), reward_gain=0.0, **SMALL)


def test_goals_that_are_drawn_have_rewards_that_no_dataset_stores(rewards: np.ndarray) -> None:
    space = spaces.Dict({key: spaces.Box(-np.inf, np.inf, (2,)) for key in ("observation", "achieved_goal")})
    space = spaces.Dict({**space.spaces, "desired_goal": spaces.Box(-np.inf, np.inf, (2,))})
    states = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    data = TransitionDataset.from_arrays(
        dict.fromkeys(space, states),
        np.zeros((60, 1)),
        rewards,
        dict.fromkeys(space, states),
        terminations=np.arange(60) % EPISODE == EPISODE - 1,
        observation_space=space,
        action_space=spaces.Box(-1, 1, (1,)),
        provenance={"goals": "hindsight"},
    )
    with pytest.raises(ValueError, match="are 0 or -1 for goals that are drawn: pass the factor as reward_gain"):
        FQL(dataset=data, reward_scaling="standard", **SMALL)
    assert FQL(dataset=data, reward_gain=2.0, **SMALL).transitions.sample(8).rewards.min() >= -2


def test_rewards_are_not_scaled_twice(rewards: np.ndarray) -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1"), norm_obs=False)
    with pytest.raises(ValueError, match=r"scaled twice.*norm_reward=False"):
        FQL("FlowPolicy", env, dataset=dataset(rewards), reward_scaling="standard", **SMALL)
    model = FQL(dataset=dataset(rewards), reward_gain=2.0, **SMALL)
    with pytest.raises(ValueError, match="scaled twice"):
        model.set_env(env)


def test_it_cannot_be_changed_in_an_existing_model(rewards: np.ndarray) -> None:
    model = IQL(dataset=dataset(rewards), **{key: SMALL[key] for key in SMALL if key != "flow_steps"})
    for name, value in {"reward_scaling": "standard", "reward_gain": 2.0}.items():
        with pytest.raises(ValueError, match=f"{name} cannot be changed"):
            setattr(model, name, value)


@pytest.mark.parametrize("factor", [0, -1.0, True, "1", None, float("inf"), float("nan")])
def test_a_policy_file_with_another_factor_is_refused(factor: Any, rewards: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    FQL(dataset=dataset(rewards), **SMALL).policy.save(path)
    declaration, weights = read_policy(path, torch.device("cpu"))
    write_policy(path, {**declaration, "reward_factor": factor}, weights)
    with pytest.raises(ValueError, match="reward_factor must be a positive number"):
        FlowPolicy.load(path)
