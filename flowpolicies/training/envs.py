"""Vectorised environments made from an address."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, final

import gymnasium as gym
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from flowpolicies.data import RewardTransform, make_env
from flowpolicies.data.replay.pixels import FrameStack
from flowpolicies.data.sources import SOURCES
from flowpolicies.policies.evaluation import SeededEpisodes
from flowpolicies.training.exact.environments import Resumable

SECONDS_TO_SAVE = 120
"""Seconds after SIGTERM for which the processes of environments still live."""


def make_vec_env(address: str, n_envs: int = 1, seed: int | None = None, *, frame_stack: int = 1) -> VecEnv:
    """`n_envs` monitored environments. A single one runs in this process; several run in one process each.

    Args:
        address: address as for `flowpolicies.data.make_env`.
        n_envs: number of environments.
        seed: seed of the list of episodes, which is the same for any number of environments: environment i plays the
            episodes i, i + n_envs, ...
        frame_stack: number of successive images that form an observation.

    Raises:
        ValueError: if `n_envs` is less than 1, or for an unknown address.
    """
    if n_envs < 1:
        raise ValueError(f"the number of environments must be at least 1, got {n_envs}")
    source = SOURCES["environments"].declared.get(address.partition(":")[0])
    makers: list[Callable[[], gym.Env[Any, Any]]] = [
        partial(_make, address, source, frame_stack, rank, n_envs) for rank in range(n_envs)
    ]
    if n_envs > 1:
        make_env(address).close()  # A wrong address is refused here, where the error is readable.
        _share_imports()
    env: VecEnv = DummyVecEnv(makers) if n_envs == 1 else SubprocVecEnv(makers)
    env.seed(seed)
    return env


def _share_imports() -> None:
    """Starts processes as copies of one that has imported this module, as the import takes seconds."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])


def _make(
    address: str, source: Callable[..., gym.Env[Any, Any]] | None, frame_stack: int, rank: int, n_envs: int
) -> gym.Env[Any, Any]:
    if source is not None:  # A notebook declared it, which a process of its own does not know.
        SOURCES["environments"].register(address.partition(":")[0], source)
    if n_envs > 1:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one.
        signal.signal(signal.SIGTERM, _outlive)  # As does the SIGTERM of a cluster.
    env = SeededEpisodes(make_env(address), rank, n_envs)
    return Resumable(Monitor(env if frame_stack == 1 else FrameStack(env, frame_stack)))


def _outlive(number: int, frame: FrameType | None) -> None:
    """Signal handler that ends the process a while later, by when the parent has saved its work and ended it."""
    if hasattr(signal, "alarm"):
        signal.alarm(SECONDS_TO_SAVE)


@final
class TransformedRewards(VecEnvWrapper):
    """Transforms the rewards that it returns; the monitors inside still report returns of the raw rewards."""

    def __init__(self, env: VecEnv, transform: RewardTransform) -> None:
        super().__init__(env)
        self.transform = transform

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, self.transform(rewards), dones, infos
