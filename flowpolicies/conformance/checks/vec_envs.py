"""Vectorised environments and wrappers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import (
    SubprocVecEnv,
    VecCheckNan,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecVideoRecorder,
)

from flowpolicies.conformance.case import STEPS, Case, NotApplicable, best_actions, need_package
from flowpolicies.conformance.promises import over
from flowpolicies.conformance.toys import GymnasiumVectorBridge, ObservationKind, ToyEnv


def _learns(case: Case, env: VecEnv, **options: Any) -> None:
    """Trains a model in an environment, and checks counters and actions."""
    model = case.model(env, **options).learn(STEPS)
    expected = -(-STEPS // env.num_envs) * env.num_envs
    assert model.num_timesteps == expected, f"num_timesteps is {model.num_timesteps}, expected {expected}"
    observations: Any = env.reset()
    shape = model.predict(observations)[0].shape
    assert shape == (env.num_envs, 2), f"the actions have the shape {shape}"


@over(box="box", dict="dict", image="image", discrete="discrete")
def learns_in_several_environments(case: Case, kind: ObservationKind) -> None:
    """A model learns in several environments at once, with any kind of observation."""
    _learns(case, case.vec(3, kind))


def learns_in_make_vec_env(case: Case) -> None:
    """`make_vec_env` with an environment id gives a VecEnv that a model learns in."""
    model = case.model(make_vec_env("Pendulum-v1", n_envs=2)).learn(STEPS)
    assert model.num_timesteps == STEPS, f"num_timesteps is {model.num_timesteps}"


def learns_in_subprocesses(case: Case) -> None:
    """A model learns in a SubprocVecEnv."""
    import multiprocessing

    if "fork" not in multiprocessing.get_all_start_methods():
        raise NotApplicable("This platform cannot fork processes; starting them anew takes too long for a check.")
    env = SubprocVecEnv([ToyEnv, ToyEnv], start_method="fork")
    try:
        _learns(case, env)
    finally:
        env.close()


@over(box="box", dict="dict")
def learns_with_normalisation(case: Case, kind: ObservationKind) -> None:
    """A model learns in a VecNormalize, finds it with `get_vec_normalize_env`, and is evaluated in one."""
    env = VecNormalize(case.vec(2, kind))
    model = case.model(env).learn(STEPS)
    assert model.get_vec_normalize_env() is env, "get_vec_normalize_env() is another object"
    env.save(str(case.folder / "normalize.pkl"))
    other = VecNormalize.load(str(case.folder / "normalize.pkl"), VecMonitor(case.vec(2, kind)))
    other.training = other.norm_reward = False
    mean, _ = evaluate_policy(model, other, n_eval_episodes=2)
    assert -40 < float(np.mean(mean)) < 0, f"the mean return is {mean}"


def normalisation_reaches_the_policy(case: Case) -> None:
    """With VecNormalize, the policy is given normalised observations during collection."""
    env = VecNormalize(case.vec(1))
    model = case.model(env).learn(30)
    seen = model._last_obs
    assert isinstance(seen, np.ndarray)
    expected: Any = env.normalize_obs(env.get_original_obs())
    np.testing.assert_allclose(seen, expected, atol=1e-3)


@over(box="box", image="image")
def learns_with_stacked_frames(case: Case, kind: ObservationKind) -> None:
    """A model learns in a VecFrameStack."""
    _learns(case, VecFrameStack(case.vec(2, kind), n_stack=2))


def learns_with_a_vec_monitor(case: Case) -> None:
    """A VecMonitor gives the statistics of episodes, and writes its file."""
    env = VecMonitor(case.vec(2, length=4), str(case.folder / "monitor.csv"))
    model = case.model(env).learn(STEPS)
    assert [one["l"] for one in model.ep_info_buffer or []] == [4] * 4, f"it holds {model.ep_info_buffer}"
    assert len((case.folder / "monitor.csv").read_text().splitlines()) == 6, "monitor.csv has not 4 rows"


def learns_with_checks_of_nan(case: Case) -> None:
    """A model learns in a VecCheckNan, which would raise an error for actions that are not finite."""
    _learns(case, VecCheckNan(case.vec(2), raise_exception=True))


def learns_with_a_video_recorder(case: Case) -> None:
    """A model learns in a VecVideoRecorder, which writes a video."""
    need_package("moviepy")
    env = VecVideoRecorder(case.vec(1), str(case.folder), record_video_trigger=lambda step: step == 0, video_length=5)
    _learns(case, env)
    assert list(case.folder.glob("*.mp4")), "no video was written"


def learns_with_wrappers_of_wrappers(case: Case) -> None:
    """Wrappers of VecEnvs can be combined."""
    _learns(case, VecNormalize(VecFrameStack(VecMonitor(case.vec(2)), n_stack=2)))


def learns_in_a_users_vec_env(case: Case) -> None:
    """A model learns in a VecEnv that a user wrote, here a bridge to a `gymnasium.vector` environment, which
    Stable-Baselines3 does not take itself."""
    if not hasattr(gym.vector, "AutoresetMode"):
        raise NotApplicable("This version of Gymnasium cannot reset environments within the step.")
    mode = gym.vector.AutoresetMode.SAME_STEP
    vector = gym.vector.SyncVectorEnv([ToyEnv, ToyEnv], autoreset_mode=mode)
    model = case.model(VecMonitor(GymnasiumVectorBridge(vector))).learn(24)
    assert model.num_timesteps == 24, f"num_timesteps is {model.num_timesteps}"
    assert [one["l"] for one in model.ep_info_buffer or []] == [10, 10], f"episodes: {model.ep_info_buffer}"


def learns_in_wrapped_environments(case: Case) -> None:
    """A model learns in an environment with Gymnasium's wrappers, such as TimeLimit."""
    env = gym.wrappers.TimeLimit(case.env(length=100), 4)
    model = case.model(env).learn(12)
    assert [one["l"] for one in model.ep_info_buffer or []] == [4] * 3, f"episodes: {model.ep_info_buffer}"


def learns_with_one_dimensional_actions(case: Case) -> None:
    """A model learns where the action is a single number, with asymmetric bounds."""
    single = spaces.Box(np.array([-1], np.float32), np.array([2], np.float32))
    env = gym.wrappers.TransformAction(case.env(), lambda action: np.repeat(action, 2), single)
    model = case.model(env).learn(STEPS)
    assert best_actions(model).shape == (5, 1), f"the shape is {best_actions(model).shape}"


def learns_with_actions_of_several_dimensions(case: Case) -> None:
    """A model learns where actions are matrices, and predicts matrices."""
    matrix = spaces.Box(-1, 1, (2, 2), np.float32)
    env = gym.wrappers.TransformAction(case.env(), lambda action: action.mean(0), matrix)
    model = case.model(env).learn(STEPS)
    assert best_actions(model).shape == (5, 2, 2), f"the shape is {best_actions(model).shape}"


def closing_the_environment_leaves_the_model(case: Case) -> None:
    """After `get_env().close()` the model still predicts and is saved."""
    model = case.trained()
    env = model.get_env()
    assert env is not None
    env.close()
    assert best_actions(model).shape == (5, 2), "it does not act"
    model.save(case.folder / "model")
