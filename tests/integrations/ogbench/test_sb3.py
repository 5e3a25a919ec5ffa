"""Stable-Baselines3's tools work with OGBench: offline and online training, evaluation, saving and loading."""

from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from tiny import tiny

from flowpolicies.algorithms import QFlow
from flowpolicies.data import generate_dataset, load_dataset, make_env

ADDRESS = "ogbench:pointmaze-medium-navigate-singletask-task1-v0"


def make():
    return make_env(ADDRESS, max_episode_steps=30)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("ogbench")
    path = generate_dataset(ADDRESS, data_dir=folder, num_episodes=2, max_episode_steps=60, progress=False)
    return load_dataset(ADDRESS, data_dir=path.parent)


@pytest.mark.parametrize("horizon", [1, 5])
def test_the_main_job_at_tiny_size(data, horizon: int, tmp_path: Path) -> None:
    model = tiny(QFlow, dataset=data, horizon=horizon, learning_starts=5)
    evaluation = EvalCallback(make_vec_env(make, n_envs=2), eval_freq=5, n_eval_episodes=2, verbose=0)
    model.learn_offline(5, callback=[evaluation, CheckpointCallback(5, str(tmp_path))])
    assert evaluation.last_mean_reward == -30
    model.set_env(make_vec_env(make, n_envs=2, seed=0))
    model.learn(80)
    assert model.replay_buffer.size() == len(data) + 80
    assert model.ep_info_buffer[-1]["l"] == 30
    assert len(model.ep_success_buffer) == 2
    masks = model.replay_buffer.online.columns["masks"][:80]
    assert masks.all(), "a time limit must not stop the bootstrap"
    found = model.evaluate(make_vec_env(make, n_envs=2), episodes=3, seed=1)
    assert found.success_rate().mean == 0
    model.save(tmp_path / "model")
    loaded = QFlow.load(tmp_path / "model", env=make_vec_env(make, n_envs=2), device="cpu")
    rewards, lengths = evaluate_policy(loaded, loaded.get_env(), 2, deterministic=False, return_episode_rewards=True)
    assert rewards == [-30, -30]
    assert lengths == [30, 30]
    observation, _ = make().reset(seed=3)
    assert observation.dtype == np.float32
    np.testing.assert_array_equal(
        model.predict(observation, deterministic=True)[0], loaded.predict(observation, deterministic=True)[0]
    )


def test_evaluation_with_a_seed_repeats(data) -> None:
    model = tiny(QFlow, dataset=data)
    runs = [model.evaluate(make_vec_env(make, n_envs=2), episodes=4, seed=7) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].returns, runs[1].returns)
    observations = [make_vec_env(make, n_envs=2, seed=5).reset() for _ in range(2)]
    np.testing.assert_array_equal(*observations)
