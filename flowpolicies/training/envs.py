"""Vectorised environments made from an address."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, NoReturn, final

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import CloudpickleWrapper, DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from flowpolicies.data import RewardTransform, make_env
from flowpolicies.data.replay.pixels import FrameStack
from flowpolicies.data.sources import SOURCES
from flowpolicies.policies.evaluation import SeededEpisodes
from flowpolicies.training.exact.environments import Resumable
from flowpolicies.tree import tree_map

SECONDS_TO_SAVE = 120
"""Seconds after SIGTERM for which the processes of environments still live."""


def make_vec_env(
    address: str, n_envs: int = 1, seed: int | None = None, *, frame_stack: int = 1, processes: int | None = None
) -> VecEnv:
    """`n_envs` monitored environments. A single one runs in this process; several run in one process each.

    Args:
        address: address as for `flowpolicies.data.make_env`.
        n_envs: number of environments.
        seed: seed of the list of episodes, which is the same for any number of environments: environment i plays the
            episodes i, i + n_envs, ...
        frame_stack: number of successive images that form an observation.
        processes: number of processes that the environments are divided among; 1: all are in this process; None: one
            for each of several environments. Training can be resumed exactly with 1 and None.

    Raises:
        ValueError: if `n_envs` or `processes` is less than 1, or for an unknown address.
    """
    for what, number in {"environments": n_envs, "processes": 1 if processes is None else processes}.items():
        if number < 1:
            raise ValueError(f"the number of {what} must be at least 1, got {number}")
    divided = n_envs if processes is None else min(processes, n_envs)
    source = SOURCES["environments"].declared.get(address.partition(":")[0])
    makers: list[Callable[[], gym.Env[Any, Any]]] = [
        partial(_make, address, source, frame_stack, rank, n_envs, divided > 1) for rank in range(n_envs)
    ]
    if divided > 1:
        make_env(address).close()  # A wrong address is refused here, where the error is readable.
        _share_imports()
    env: VecEnv
    if divided == 1:
        env = DummyVecEnv(makers)
    else:
        env = SubprocVecEnv(makers) if processes is None else DividedVecEnv(makers, divided)
    env.seed(seed)
    return env


def _share_imports() -> None:
    """Starts processes as copies of one that has imported this module, as the import takes seconds."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])


def _make(
    address: str,
    source: Callable[..., gym.Env[Any, Any]] | None,
    frame_stack: int,
    rank: int,
    n_envs: int,
    in_process_of_its_own: bool,
) -> gym.Env[Any, Any]:
    if source is not None:  # A notebook declared it, which a process of its own does not know.
        SOURCES["environments"].register(address.partition(":")[0], source)
    if in_process_of_its_own:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one.
        signal.signal(signal.SIGTERM, _outlive)  # As does the SIGTERM of a cluster.
    env = SeededEpisodes(make_env(address), rank, n_envs)
    return Resumable(Monitor(env if frame_stack == 1 else FrameStack(env, frame_stack)))


def _outlive(number: int, frame: FrameType | None) -> None:
    """Signal handler that ends the process a while later, by when the parent has saved its work and ended it."""
    if hasattr(signal, "alarm"):
        signal.alarm(SECONDS_TO_SAVE)


@final
class DividedVecEnv(VecEnv):
    """Environments divided among processes, each of which steps its share of them one after the other.

    `SubprocVecEnv` has a process for each environment, which costs more than a step of a fast environment.

    Args:
        makers: functions that make the environments.
        processes: number of processes.

    Raises:
        RuntimeError: if an environment fails, with its traceback.
    """

    def __init__(self, makers: Sequence[Callable[[], gym.Env[Any, Any]]], processes: int) -> None:
        starts = ["forkserver"] if "forkserver" in multiprocessing.get_all_start_methods() else ["spawn"]
        context: Any = multiprocessing.get_context(starts[0])
        self._shares = [share.tolist() for share in np.array_split(np.arange(len(makers)), processes)]
        self._connections, self.processes = [], []
        for share in self._shares:
            connection, other = context.Pipe()
            made = CloudpickleWrapper([makers[i] for i in share])
            process = context.Process(target=_serve, args=(other, made), daemon=True)
            process.start()
            other.close()
            self._connections.append(connection)
            self.processes.append(process)
        observation_space, action_space = self._call(0, "_spaces")
        super().__init__(len(makers), observation_space, action_space)

    def _send(self, worker: int, name: str, *arguments: Any, **options: Any) -> None:
        self._connections[worker].send((name, arguments, options))

    def _receive(self, worker: int) -> Any:
        failure, result = self._connections[worker].recv()
        if failure is not None:
            raise RuntimeError(f"an environment failed in its process:\n{failure}")
        return result

    def _call(self, worker: int, name: str, *arguments: Any, **options: Any) -> Any:
        self._send(worker, name, *arguments, **options)
        return self._receive(worker)

    def _ask(self, name: str, *arguments: Any, indices: Any, **options: Any) -> list[Any]:
        """What a method of `VecEnv` returns for some of the environments."""
        places = {i: (worker, k) for worker, share in enumerate(self._shares) for k, i in enumerate(share)}
        chosen = [places[i] for i in self._get_indices(indices)]
        return [self._call(worker, name, *arguments, indices=[k], **options) for worker, k in chosen]

    def reset(self) -> VecEnvObs:
        for worker, share in enumerate(self._shares):
            self._send(worker, "_reset", [self._seeds[i] for i in share], [self._options[i] for i in share])
        found = [self._receive(worker) for worker in range(len(self._shares))]
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [info for _, infos in found for info in infos]
        joined: VecEnvObs = _joined([observations for observations, _ in found])
        return joined

    def step_async(self, actions: np.ndarray) -> None:
        for worker, share in enumerate(self._shares):
            self._send(worker, "_step", actions[share])

    def step_wait(self) -> VecEnvStepReturn:
        found = [self._receive(worker) for worker in range(len(self._shares))]
        observations, rewards, dones, infos, resets = zip(*found, strict=True)
        self.reset_infos = [info for part in resets for info in part]
        every = [info for part in infos for info in part]
        return _joined(observations), np.concatenate(rewards), np.concatenate(dones), every

    def close(self) -> None:
        for connection in self._connections:
            connection.close()  # Where the process ends.
        for process in self.processes:
            process.join()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [found[0] for found in self._ask("get_attr", attr_name, indices=indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        self._ask("set_attr", attr_name, value, indices=indices)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        return [
            found[0] for found in self._ask("env_method", method_name, *method_args, indices=indices, **method_kwargs)
        ]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        return [found[0] for found in self._ask("env_is_wrapped", wrapper_class, indices=indices)]


@final
class _Share(DummyVecEnv):
    """The environments of one process of a `DividedVecEnv`."""

    def _spaces(self) -> Any:
        return self.observation_space, self.action_space

    def _reset(self, seeds: list[int | None], options: list[dict[str, Any]]) -> Any:
        self._seeds, self._options = seeds, options
        return self.reset(), self.reset_infos

    def _step(self, actions: np.ndarray) -> Any:
        return *self.step(actions), self.reset_infos


def _serve(connection: Any, makers: CloudpickleWrapper) -> None:
    """Calls methods of a `_Share` until the other end of the connection is closed."""
    env: Any = None
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            name, arguments, options = connection.recv()
            try:
                env = _Share(makers.var) if env is None else env
                answer: Any = None, getattr(env, name)(*arguments, **options)
            except Exception:  # Environments of others fail as they like.
                answer = traceback.format_exc(), None
            connection.send(answer)
    if env is not None:
        env.close()


def _joined(parts: Sequence[Any]) -> Any:
    """The observations of all processes as one batch."""
    return tree_map(lambda *arrays: np.concatenate(arrays), *parts)


@final
class OnlySpaces(VecEnvWrapper):
    """Shows the spaces of environments to a model that does not act in them, as those of `n_envs` environments."""

    def __init__(self, env: VecEnv, n_envs: int) -> None:
        super().__init__(env)
        self.num_envs = n_envs

    def reset(self) -> NoReturn:
        raise RuntimeError("these environments are for evaluations; a model cannot collect in them")

    def step_wait(self) -> NoReturn:
        self.reset()


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
