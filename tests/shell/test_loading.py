"""Models that are loaded from a file, in the order of Stable-Baselines3's documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from stable_baselines3.common.env_util import make_vec_env

from flowpolicies import FQL
from tests.support.tiny import tiny


@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_replay_buffer_of_several_environments_is_loaded_before_the_environment_is_set(
    n_envs: int, tmp_path: Path
) -> None:
    model = tiny(FQL, env=make_vec_env("Pendulum-v1", n_envs), learning_starts=6)
    model.learn(12)
    model.save(tmp_path / "model.zip")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    loaded = FQL.load(tmp_path / "model.zip", device="cpu")
    assert loaded.n_envs == n_envs
    loaded.load_replay_buffer(tmp_path / "buffer.pkl")
    assert loaded.replay_buffer.size() == 12  # Transitions of all environments.
    loaded.set_env(make_vec_env("Pendulum-v1", n_envs))
    loaded.learn(6, reset_num_timesteps=False)
    assert (loaded.num_timesteps, loaded.replay_buffer.size()) == (18, 18)


def test_a_model_of_several_environments_predicts_and_continues_in_one(tmp_path: Path) -> None:
    model = tiny(FQL, env=make_vec_env("Pendulum-v1", 3), learning_starts=6)
    model.learn(12)
    model.save(tmp_path / "model.zip")
    loaded = FQL.load(tmp_path / "model.zip", device="cpu")
    assert loaded.predict(loaded.observation_space.sample())[0].shape == (1,)
    loaded.set_env("Pendulum-v1")
    assert loaded.n_envs == 1
    loaded.learn(6)
    assert loaded.replay_buffer.size() == 6
