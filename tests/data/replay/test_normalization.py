"""VecNormalize with a dataset: where its statistics start, and that offline and online rows are normalised alike."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from flowpolicies import FQL
from flowpolicies.data import HindsightGoals, TransitionDataset, open_memmap, write_memmap
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.data.replay.normalization import running_returns

OBS, ACT = spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Box(-2, 2, (1,), np.float32)
ENDS = np.arange(400) % 50 == 49
ENDS[[7, 8]] = True


class Replay(gym.Env[Any, Any]):
    """Plays a dataset: its observations and rewards, episode by episode."""

    def __init__(self, data: TransitionDataset) -> None:
        self.data, self.row = data, -1
        self.observation_space, self.action_space = data.observation_space, data.action_space

    def reset(self, **_: Any) -> Any:
        self.row = (self.row + 1) % len(self.data)
        return self.data.observations[self.row], {}

    def step(self, action: Any) -> Any:
        end = bool(self.data.terminals[self.row])
        following = self.data.next_observations[self.row]
        reward = float(self.data.rewards[self.row])
        if not end:
            self.row += 1
        return following, reward, end, False, {}


def dataset(seed: int = 0) -> TransitionDataset:
    """Observations of mean 5 and deviation 2, rewards of mean -3; the next observation is that of the next row."""
    rng = np.random.default_rng(seed)
    states = rng.normal(5, 2, (401, 3)).astype(np.float32)
    return TransitionDataset.from_arrays(
        states[:-1],
        rng.uniform(-2, 2, (400, 1)),
        rng.normal(-3, 1, 400),
        states[1:],
        terminations=ENDS,
        observation_space=OBS,
        action_space=ACT,
    )


def make(space: spaces.Space[Any] = OBS, **options: Any) -> TransitionBuffer:
    return TransitionBuffer(100, space, ACT, "cpu", **{"seed": 0, **options})


def pendulum(**options: Any) -> VecNormalize:
    return VecNormalize(make_vec_env("Pendulum-v1"), **options)


@pytest.mark.parametrize("in_files", [False, True])
def test_statistics_are_those_of_having_seen_the_data(in_files: bool, tmp_path: Path) -> None:
    data = dataset()
    seen = VecNormalize(DummyVecEnv([lambda: Replay(data)]), gamma=0.9)
    seen.reset()
    for _ in range(len(data)):
        seen.step(np.zeros((1, 1)))
    buffer, env = make(), pendulum(gamma=0.9)
    buffer.attach(open_memmap(write_memmap(tmp_path / "data", data)) if in_files else data)
    buffer.start_statistics(env)
    # The environment also shows the first observation of the episode after the last one, which is row 0 again.
    np.testing.assert_allclose(env.obs_rms.mean, data.observations.mean(0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(env.obs_rms.var, data.observations.var(0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(env.obs_rms.mean, seen.obs_rms.mean, rtol=1e-2)
    np.testing.assert_allclose(env.ret_rms.mean, seen.ret_rms.mean, rtol=1e-6)
    np.testing.assert_allclose(env.ret_rms.var, seen.ret_rms.var, rtol=1e-6)
    assert env.ret_rms.count == pytest.approx(400, abs=0.01)
    assert env.obs_rms.count == pytest.approx(400, abs=0.01)


def test_returns_look_backwards() -> None:
    rewards = np.arange(1.0, 7)
    found = running_returns(rewards, np.array([0, 1, 1, 0, 0, 0], bool), 0.5)
    np.testing.assert_allclose(found, [1, 2.5, 3, 4, 7, 9.5])
    with_end = running_returns(rewards, np.array([0, 1, 1, 0, 0, 1], bool), 0.5)
    np.testing.assert_allclose(found, with_end)


def test_statistics_that_saw_steps_are_kept(tmp_path: Path) -> None:
    buffer = make()
    buffer.attach(dataset())
    env = pendulum()
    env.reset()
    env.step(np.zeros((1, 1)))
    env.save(str(tmp_path / "env.pkl"))
    for each in (env, VecNormalize.load(str(tmp_path / "env.pkl"), make_vec_env("Pendulum-v1"))):
        mean, variance = each.obs_rms.mean.copy(), np.copy(each.ret_rms.var)
        buffer.start_statistics(each)
        np.testing.assert_array_equal(each.obs_rms.mean, mean)
        np.testing.assert_array_equal(each.ret_rms.var, variance)
    frozen = pendulum(training=False)
    buffer.start_statistics(frozen)
    np.testing.assert_array_equal(frozen.obs_rms.mean, np.zeros(3))
    started = pendulum()
    buffer.start_statistics(started)
    mean = started.obs_rms.mean.copy()
    other = make()
    other.attach(dataset(1))
    other.start_statistics(started)
    np.testing.assert_array_equal(started.obs_rms.mean, mean)


def test_nothing_happens_without_a_dataset_or_a_normalizer() -> None:
    env = pendulum()
    make().start_statistics(env)
    assert env.obs_rms.count < 1
    buffer = make()
    buffer.attach(dataset())
    buffer.start_statistics(None)
    rewards_only = pendulum(norm_obs=False)
    buffer.start_statistics(rewards_only)
    assert rewards_only.ret_rms.count > 100
    observations_only = pendulum(norm_reward=False)
    buffer.start_statistics(observations_only)
    assert observations_only.ret_rms.count < 1


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("windows", ["uniform", "episodes"])
def test_offline_and_online_rows_are_normalised_alike(windows: Any, n_steps: int) -> None:
    data, env = dataset(), pendulum()
    buffer = make(windows=windows, n_steps=n_steps)
    buffer.attach(data)
    buffer.start_statistics(env)
    for row in range(8):
        step = (data.observations[row], data.next_observations[row], data.actions[row] / 2, data.rewards[row])
        buffer.add(*step, data.terminals[row], [{}])
    normal = buffer.sample(300, env=env)
    by_start: dict[tuple[float, ...], set[tuple[float, ...]]] = {}
    for i in range(300):
        start = tuple(normal.observations[i].tolist())
        parts = (normal.rewards[i : i + 1], normal.next_observations[i])
        by_start.setdefault(start, set()).add(tuple(torch.cat(parts).tolist()))
    known = env.normalize_obs(data.observations)
    assert set(by_start) <= {tuple(row.tolist()) for row in known}
    first = by_start[tuple(known[0].tolist())]
    assert len(first) == 1, "the offline and the online copy of row 0 differ"


def test_batches_of_one_part_only() -> None:
    buffer, env = make(), pendulum()
    buffer.attach(dataset())
    buffer.start_statistics(env)
    zeros = np.zeros((1, 3), np.float32)
    buffer.add(zeros, zeros, np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
    for _ in range(20):
        batch = buffer.sample(2, env=env)
        assert batch.observations.shape == (2, 3)


def test_goals_are_normalised_by_what_is_achieved() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(3, 2, (40, 2)).astype(np.float32)
    observations = {"observation": states, "desired_goal": np.zeros_like(states)}
    data = TransitionDataset.from_arrays(
        *(observations, rng.uniform(-1, 1, (40, 1)), np.zeros(40), observations),
        terminations=np.arange(40) % 10 == 9,
        action_space=ACT,
        provenance={"goals": "hindsight"},
    )
    buffer = make(data.observation_space, goals=HindsightGoals())
    buffer.attach(data)

    class Goals(gym.Env[Any, Any]):
        observation_space, action_space = data.observation_space, ACT

    env = VecNormalize(DummyVecEnv([Goals]))
    buffer.start_statistics(env)
    for key in ("observation", "desired_goal"):
        np.testing.assert_allclose(env.obs_rms[key].mean, states.mean(0), rtol=1e-4)
    assert env.ret_rms.var > 1
    assert buffer.sample(20, env=env).observations.abs().max() < 6


def test_shapes_that_do_not_fit_are_refused() -> None:
    env = VecNormalize(make_vec_env("MountainCarContinuous-v0"))
    buffer = make()
    buffer.attach(dataset())
    with pytest.raises(ValueError, match=r"observations of shape \(2,\), but the dataset's have the shape \(3,\)"):
        buffer.start_statistics(env)


def test_a_model_trains_offline_online_and_after_loading(tmp_path: Path) -> None:
    data, env = dataset(), pendulum()
    options = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,), "device": "cpu", "seed": 0}
    model = FQL("MlpPolicy", env, dataset=data, learning_starts=5, batch_size=2, **options)
    model.transitions.start_statistics(env)
    model.learn_offline(5)
    np.testing.assert_allclose(env.obs_rms.mean, data.observations.mean(0), rtol=1e-4)
    model.learn(30)
    assert env.obs_rms.count == pytest.approx(431, abs=0.01)
    assert model.transitions.size() == 430
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    env.save(str(tmp_path / "env.pkl"))
    loaded_env = VecNormalize.load(str(tmp_path / "env.pkl"), make_vec_env("Pendulum-v1"))
    loaded = FQL.load(tmp_path / "model", env=loaded_env, device="cpu")
    loaded.set_dataset(data)
    loaded.transitions.start_statistics(loaded_env)
    np.testing.assert_array_equal(loaded_env.obs_rms.mean, env.obs_rms.mean)
    loaded.learn_offline(3)
    loaded.learn(10, reset_num_timesteps=False)
