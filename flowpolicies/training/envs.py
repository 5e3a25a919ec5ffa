"""Environments by address, several at once."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, final

import gymnasium as gym
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from flowpolicies.data import RewardTransform, make_env
from flowpolicies.data.replay.pixels import FrameStack
from flowpolicies.policies.evaluation import SeededEpisodes


def make_vec_env(address: str, n_envs: int = 1, seed: int | None = None, *, frame_stack: int = 1) -> VecEnv:
    """`n_envs` environments, monitored; one runs in this process, more run in a process each.

    Args:
        address: as for `flowpolicies.data.make_env`.
        seed: of the list of episodes, which is the same for any number of environments: number i plays the episodes
            i, i + n_envs, ...
        frame_stack: number of images that make an observation.

    Raises:
        ValueError: for fewer than one environment, or an unknown address.
    """
    if n_envs < 1:
        raise ValueError(f"the number of environments must be at least 1, got {n_envs}")
    makers: list[Callable[[], gym.Env[Any, Any]]] = [
        partial(_make, address, frame_stack, rank, n_envs) for rank in range(n_envs)
    ]
    if n_envs > 1:
        make_env(address).close()  # An address that is wrong is better refused here than in a process.
        _share_imports()
    env: VecEnv = DummyVecEnv(makers) if n_envs == 1 else SubprocVecEnv(makers)
    env.seed(seed)
    return env


def _share_imports() -> None:
    """Lets processes be copies of one that has imported all they need, which takes seconds, and is done once."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])


def _make(address: str, frame_stack: int, rank: int, n_envs: int) -> gym.Env[Any, Any]:
    if n_envs > 1:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its processes.
    env = SeededEpisodes(make_env(address), rank, n_envs)
    return Monitor(env if frame_stack == 1 else FrameStack(env, frame_stack))


@final
class TransformedRewards(VecEnvWrapper):
    """Hands out transformed rewards; the monitors inside go on reporting returns of the raw ones."""

    def __init__(self, env: VecEnv, transform: RewardTransform) -> None:
        super().__init__(env)
        self.transform = transform

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, self.transform(rewards), dones, infos
