"""Stable-Baselines3's own tools, unchanged, on our algorithms."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tiny import pendulum_data, tiny

from flowpolicies.algorithms import BC, FQL, QFlow


def test_evaluate_policy(horizon) -> None:
    model = tiny(QFlow, env="Pendulum-v1", horizon=horizon)
    mean, std = evaluate_policy(model, make_vec_env("Pendulum-v1", n_envs=2), n_eval_episodes=3, deterministic=False)
    assert -2000 < mean < 0
    assert std >= 0


def test_eval_and_checkpoint_callbacks_offline_and_online(data, tmp_path: Path) -> None:
    model = tiny(FQL, dataset=data, verbose=0)
    evaluation = EvalCallback(
        make_vec_env("Pendulum-v1"), eval_freq=4, n_eval_episodes=1, log_path=str(tmp_path), verbose=0
    )
    model.learn_offline(8, callback=[evaluation, CheckpointCallback(4, str(tmp_path), name_prefix="offline")])
    assert sorted(p.name for p in tmp_path.glob("offline*.zip")) == ["offline_4_steps.zip", "offline_8_steps.zip"]
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [4, 8]
    model.set_env(make_vec_env("Pendulum-v1", n_envs=2))
    evaluation = EvalCallback(make_vec_env("Pendulum-v1"), eval_freq=10, n_eval_episodes=1, verbose=0)
    model.learn(
        40, callback=[evaluation, CheckpointCallback(10, str(tmp_path), name_prefix="online", save_replay_buffer=True)]
    )
    assert (tmp_path / "online_20_steps.zip").is_file()
    assert evaluation.last_mean_reward < 0
    resumed = FQL.load(tmp_path / "online_40_steps.zip", env=make_vec_env("Pendulum-v1", n_envs=2), device="cpu")
    resumed.load_replay_buffer(tmp_path / "online_replay_buffer_40_steps.pkl")
    assert resumed.replay_buffer.size() == 38  # Callbacks run before the step they see is stored.
    resumed.learn(20, reset_num_timesteps=False)
    assert resumed.num_timesteps == 60


def test_callback_sees_offline_steps_and_can_stop(data) -> None:
    class Stop(BaseCallback):
        seen: list[int] = []  # noqa: RUF012

        def _on_step(self) -> bool:
            self.seen.append(self.num_timesteps)
            return self.num_timesteps < 5

    model = tiny(BC, dataset=data)
    model.learn_offline(3, callback=Stop())
    model.learn_offline(10, callback=Stop())
    assert Stop.seen == [1, 2, 3, 4, 5]
    assert (model.offline_steps, model.num_timesteps) == (5, 0)


def test_an_interrupted_run_keeps_its_counters_and_its_log(data, tmp_path: Path) -> None:
    def interrupt(locals_, globals_) -> bool:
        if locals_["self"].offline_steps == 5:
            raise KeyboardInterrupt
        return True

    model = tiny(BC, dataset=data)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    with pytest.raises(KeyboardInterrupt):
        model.learn_offline(10, callback=interrupt)
    assert (model.offline_steps, model.num_timesteps, model._n_updates) == (5, 0, 5)
    assert "train/flow_matching/loss" in (tmp_path / "progress.csv").read_text()
    model.learn_offline(5)
    assert model.offline_steps == 10


def test_stop_training_on_max_episodes() -> None:
    model = tiny(BC, env=make_vec_env("Pendulum-v1", n_envs=2), learning_starts=10_000)
    model.learn(2_000, callback=StopTrainingOnMaxEpisodes(1))
    assert model.num_timesteps == 400


def test_log_holds_means_over_the_interval(data, tmp_path: Path) -> None:
    model = tiny(QFlow, dataset=data, tensorboard_log=str(tmp_path / "tb"))
    model.learn_offline(4, log_interval=2)
    assert list((tmp_path / "tb").glob("offline_1/events*"))
    model = tiny(QFlow, dataset=data)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn_offline(4, log_interval=2)
    header, *rows = (tmp_path / "progress.csv").read_text().splitlines()
    assert len(rows) == 2
    for key in ("train/critic/loss", "train/inner_value/loss", "train/actor/guidance", "time/steps_per_second"):
        assert key in header.split(",")


def test_progress_bar(data) -> None:
    model = tiny(BC, dataset=data)
    model.learn_offline(3, progress_bar=True)
    assert model.offline_steps == 3


def test_learning_rate_schedule_reaches_the_update(data) -> None:
    frozen = tiny(BC, dataset=data, learning_rate=lambda progress: 0.0)
    before = frozen.policy.networks["actor_flow"].net.output.weight.clone()
    frozen.learn_offline(2)
    assert torch.equal(before, frozen.policy.networks["actor_flow"].net.output.weight)
    model = tiny(BC, dataset=data, learning_rate=lambda progress: 1e-3 * progress)
    model.learn_offline(4)
    assert model.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.25)


def test_get_and_set_parameters_are_exact(data) -> None:
    a, b = tiny(FQL, dataset=data), tiny(FQL, dataset=data, seed=1)
    a.learn_offline(2)
    b.set_parameters(a.get_parameters(), device="cpu")
    for model in (a, b):
        model.set_random_seed(5)  # The parameters are weights and moments; random numbers are drawn from a seed.
        model.learn_offline(2)
    for p, q in zip(a.policy.parameters(), b.policy.parameters(), strict=True):
        assert torch.equal(p, q)


def test_zips_load_without_an_environment_and_with_another_number_of_them(data, tmp_path: Path) -> None:
    model = tiny(QFlow, env=make_vec_env("Pendulum-v1", n_envs=3), horizon=2)
    model.save(tmp_path / "m")
    alone = QFlow.load(tmp_path / "m", device="cpu")
    assert alone.get_env() is None
    assert alone.predict(np.zeros(3, np.float32))[0].shape == (1,)
    two = QFlow.load(tmp_path / "m", env=make_vec_env("Pendulum-v1", n_envs=2), device="cpu")
    assert two.learn(10).replay_buffer.size() == 10


def test_chunk_queues_of_the_online_loop_are_cleared_on_dones() -> None:
    class Short(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Box(-1, 1, (1,))

        def __init__(self, length: int) -> None:
            self.length, self.t = length, 0

        def reset(self, *, seed=None, options=None):
            self.t = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.t += 1
            return np.zeros(1, np.float32), 0.0, self.t == self.length, False, {}

    env = DummyVecEnv([lambda: Short(3), lambda: Short(100)])
    model = tiny(BC, env=env, horizon=5, learning_starts=0)
    positions = []
    record = lambda names, values: positions.append(model._chunk_state[1].tolist()) or True
    model.learn(16, callback=record)
    assert [p[0] for p in positions] == [1, 2, 3, 1, 2, 3, 1, 2]
    assert [p[1] for p in positions] == [1, 2, 3, 4, 5, 1, 2, 3]


def test_trained_model_explores_with_its_policy_and_a_fresh_one_at_random(data) -> None:
    calls = []
    model = tiny(BC, dataset=data, learning_starts=1000)
    model.learn_offline(1)
    model.set_env(make_vec_env("Pendulum-v1"))
    predict = model.policy.predict
    model.policy.predict = lambda *a, **k: calls.append(1) or predict(*a, **k)
    model.learn(10)
    assert len(calls) == 10
    fresh = tiny(BC, env=make_vec_env("Pendulum-v1"), learning_starts=1000)
    fresh.policy.predict = lambda *a, **k: pytest.fail("a fresh model must act at random")
    fresh.learn(10)


def test_action_noise_and_vec_normalize() -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2))
    model = tiny(FQL, env=env, learning_starts=10, action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)))
    model.learn(40)
    assert model._n_updates > 0


def test_n_step_returns(data) -> None:
    model = tiny(FQL, dataset=data, n_steps=3)
    assert model.replay_buffer.length == 3
    model.learn_offline(2)
    assert model._n_updates == 2


def test_dict_and_image_environments() -> None:
    class Camera(gym.Env):
        observation_space = gym.spaces.Dict(
            {"image": gym.spaces.Box(0, 255, (36, 36, 3), np.uint8), "joints": gym.spaces.Box(-1, 1, (2,))}
        )
        action_space = gym.spaces.Box(-1, 1, (2,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.observation_space.seed(seed)
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), 0.0, False, False, {}

    check_env(Camera())
    model = tiny(FQL, env=gym.wrappers.TimeLimit(Camera(), 8), encoder="impala_debug", learning_starts=5, batch_size=4)
    model.learn(12)
    assert model._n_updates > 0
    assert model.policy.networks["critic"].encoder.parts[0].shape == (3, 36, 36)


def test_gradient_clipping_is_a_hyperparameter(data) -> None:
    model = tiny(FQL, dataset=data, clip_grad_norm=0.5)
    model.learn_offline(0)
    model.train(1, 32)
    assert model._means.pop()["grad/norm"] > 0


def test_data_of_another_run_is_used_when_given(data) -> None:
    model = tiny(BC, dataset=data)
    model.learn_offline(1, dataset=pendulum_data(60, seed=1))
    assert model.replay_buffer.size() == 60


def test_a_loaded_replay_buffer_brings_its_generator(tmp_path: Path) -> None:
    model = tiny(BC, env=make_vec_env("Pendulum-v1"), learning_starts=5)
    model.learn(20)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    model.learn(20, reset_num_timesteps=False)
    state = model.generators.state_dict()["buffer"]
    assert torch.equal(state, model.replay_buffer.generator.get_state())
