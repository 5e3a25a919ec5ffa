from __future__ import annotations

import numpy as np
import pytest

from flowpolicies.data import RewardTransform
from flowpolicies.training import make_vec_env
from flowpolicies.training.envs import TransformedRewards


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


def test_wrong_requests_are_refused_before_any_process_starts() -> None:
    with pytest.raises(ValueError, match="the number of environments must be at least 1, got 0"):
        make_vec_env("Pendulum-v1", n_envs=0)
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
