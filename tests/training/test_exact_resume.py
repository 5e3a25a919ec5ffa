"""run(N) equals run(k), a kill and a resume, bit for bit, in environments whose state can be captured."""

from __future__ import annotations

import csv
import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize
from tiny import tiny
from torch.testing import assert_close

from flowpolicies.algorithms import FQL, QC, OfflineAlgorithm
from flowpolicies.artifacts import ArtifactError
from flowpolicies.cli.app import main
from flowpolicies.data import make_env
from flowpolicies.policies.evaluation import SeededEpisodes
from flowpolicies.training import AtomicCheckpoint, Resumable, RunFolder, load_checkpoint, make_vec_env
from flowpolicies.training.exact.checkpoints import restore_state, state_of
from flowpolicies.training.exact.environments import capture_vec_env, restore_vec_env
from flowpolicies.training.exact.files import difference

POINTMAZE = "ogbench:pointmaze-medium-navigate-singletask-v0"
STEPS, SAVED = 44, 28
"""Steps of each environment in a whole run, and when the checkpoint is saved; episodes have 9 steps."""

Maker = Callable[[], gym.Env[Any, Any]]


def environments(make: Maker, n_envs: int = 1) -> VecEnv:
    """Environments as `make_vec_env` makes them, but all in this process."""
    makers = [lambda rank=rank: Monitor(SeededEpisodes(make(), rank, n_envs)) for rank in range(n_envs)]
    return DummyVecEnv(makers)


def short(address: str) -> Maker:
    if address.startswith("ogbench:"):
        pytest.importorskip("flowpolicies_ogbench")
        return lambda: make_env(address, max_episode_steps=9)
    return lambda: gym.make(address, max_episode_steps=9)


def make_model(algorithm: type[OfflineAlgorithm], env: VecEnv, **options: Any) -> OfflineAlgorithm:
    sizes = {"learning_starts": 8 * env.num_envs, "train_freq": 4, "buffer_size": 30 * env.num_envs, "batch_size": 8}
    if algorithm is QC:
        sizes["horizon"] = 3
    return tiny(algorithm, env=env, **{**sizes, **options})


def learn(model: OfflineAlgorithm, steps: int, folder: RunFolder | None = None) -> OfflineAlgorithm:
    saved = [] if folder is None else [AtomicCheckpoint(folder, SAVED * model.n_envs, keep=9)]
    assert model.env is not None
    return model.learn(steps * model.n_envs - model.num_timesteps, callback=saved, reset_num_timesteps=False)


def everything(model: OfflineAlgorithm) -> dict[str, Any]:
    """All that a run leaves: weights, optimiser, buffer, generators, counters, the state of the environments."""
    ring = model.transitions.online
    assert ring is not None
    assert model.env is not None
    moments = {
        f"{i}/{key}": value for i, held in model.optimizer.state_dict()["state"].items() for key, value in held.items()
    }
    tensors = {**model.policy.state_dict(), **moments, **ring.columns, **model.generators.state_dict()}
    counters = (model.num_timesteps, model._n_updates, model._episode_num, ring.head, ring.size)
    episodes = [(episode["r"], episode["l"]) for episode in model.ep_info_buffer or ()]
    found = {name: np.asarray(torch.as_tensor(value)) for name, value in tensors.items()}
    times = ("episode_times",)  # Seconds since the process began.
    environment = without(capture_vec_env(model.env), times)
    return {**found, "counters": list(counters), "episodes": list(map(list, episodes)), "environment": environment}


def without(state: Any, names: tuple[str, ...]) -> Any:
    if isinstance(state, dict):
        return {key: without(value, names) for key, value in state.items() if key not in names}
    return [without(value, names) for value in state] if isinstance(state, list) else state


def disturb() -> None:
    """Another process has other global generators."""
    random.seed(77)
    np.random.seed(77)
    torch.manual_seed(77)


def resumed(algorithm: type[OfflineAlgorithm], folder: RunFolder, env: VecEnv) -> OfflineAlgorithm:
    disturb()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_checkpoint(algorithm, folder, env, device="cpu")
    disturb()
    return model


def check(algorithm: type[OfflineAlgorithm], make: Callable[[], VecEnv], folder: RunFolder, **options: Any) -> None:
    """Compares a whole run with one that is resumed from its checkpoint in the middle."""
    env = make()
    env.seed(3)
    whole = learn(make_model(algorithm, env, **options), STEPS, folder)
    (checkpoint,) = folder.list_checkpoints()
    model = resumed(algorithm, folder, make())
    assert model.num_timesteps == SAVED * env.num_envs == int(checkpoint.stem.removeprefix("step_"))
    again = learn(model, STEPS)
    assert again._n_updates > 0
    assert difference(everything(again), everything(whole)) is None
    for venv in (env, model.env):
        assert venv is not None
        venv.close()


@pytest.mark.parametrize("n_envs", [1, 4])
@pytest.mark.parametrize("algorithm", [FQL, QC])
@pytest.mark.parametrize("address", ["Pendulum-v1", "Hopper-v5", POINTMAZE])
def test_a_run_continues_inside_its_episodes(
    folder: RunFolder, address: str, algorithm: type[OfflineAlgorithm], n_envs: int
) -> None:
    check(algorithm, lambda: environments(short(address), n_envs), folder)


@pytest.mark.parametrize("random_steps", [8, SAVED + 4])
def test_statistics_noise_and_random_steps_continue(folder: RunFolder, random_steps: int) -> None:
    """VecNormalize, a noise with memory, the generator of the first steps, and NumPy's global one, which noise uses."""

    def make() -> VecEnv:
        wrapped = lambda: gym.wrappers.NormalizeObservation(short("Pendulum-v1")())
        return VecNormalize(environments(wrapped, 2))

    noise = OrnsteinUhlenbeckActionNoise(np.zeros(1), np.full(1, 0.2))
    check(FQL, make, folder, action_noise=noise, learning_starts=2 * random_steps)


class Walk(gym.Env[Any, Any]):
    """A random walk whose steps depend on everything before; it does not describe its state."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.t = self.np_random.normal(size=2), 0
        return self.place.astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        self.place = 0.9 * self.place + 0.1 * np.asarray(action) + 0.1 * self.np_random.normal(size=2)
        return self.place.astype(np.float32), -float(np.abs(self.place).sum()), False, self.t == 9, {}


class DescribedWalk(Walk):
    """The same, with the two methods that make it resumable."""

    def get_state(self) -> dict[str, Any]:
        return {"place": self.place, "t": self.t}

    def set_state(self, state: dict[str, Any]) -> None:
        self.place, self.t = state["place"], state["t"]


class VagueWalk(Walk):
    """It describes its state by what is not plain data."""

    def get_state(self) -> Any:
        return {"place": object()}

    def set_state(self, state: Any) -> None:
        raise AssertionError


class Scaled(gym.RewardWrapper[Any, Any]):
    """A wrapper of the user's without attributes."""

    def reward(self, reward: Any) -> Any:
        return 0.1 * reward


class Counting(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper of the user's with a state of its own."""

    count = 0

    def step(self, action: Any) -> Any:
        self.count += 1
        return self.env.step(action)

    def get_state(self) -> int:
        return self.count

    def set_state(self, state: int) -> None:
        self.count = state


def test_an_environment_that_describes_its_state_continues(folder: RunFolder) -> None:
    check(FQL, lambda: environments(lambda: Counting(Scaled(DescribedWalk())), 2), folder)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (Walk, r"the state of .*\.Walk is not known\. Give it the methods get_state\(\) and set_state\(state\)"),
        (VagueWalk, r"VagueWalk\.get_state\(\)\['place'\] holds an object of builtins\.object, and get_state\(\) must"),
    ],
)
def test_other_environments_begin_new_episodes_and_say_so_once(folder: RunFolder, make: Maker, text: str) -> None:
    env = environments(make, 2)
    env.seed(3)
    learn(make_model(FQL, env), STEPS, folder)
    with pytest.warns(UserWarning, match=f"training continues with new episodes.*{text}"):
        model = load_checkpoint(FQL, folder, environments(make, 2), device="cpu")
    ring = model.transitions.online
    assert ring is not None
    newest = (ring.head - 1) % ring.capacity * 2
    assert not ring.columns["terminals"][newest : newest + 2].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn(model, SAVED)
    assert ring.columns["terminals"][newest : newest + 2].all()  # The open episodes end there.
    learn(model, STEPS)
    assert model.num_timesteps == 2 * STEPS


def test_another_stack_of_environments_begins_new_episodes(folder: RunFolder) -> None:
    learn(make_model(FQL, environments(short("Pendulum-v1"))), STEPS, folder)
    for make, text in (
        (lambda: environments(lambda: Scaled(short("Pendulum-v1")())), "consists of other layers"),
        (lambda: VecNormalize(environments(short("Pendulum-v1"))), "the checkpoint has the state of"),
    ):
        with pytest.warns(UserWarning, match=text):
            model = load_checkpoint(FQL, folder, make(), device="cpu")
        learn(model, STEPS)
        assert model.num_timesteps == STEPS


def test_a_checkpoint_inside_a_step_begins_new_episodes(folder: RunFolder) -> None:
    class Hasty(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == SAVED:
                folder.save_checkpoint(make, replay_buffer=True)
            return True

    make = make_model(FQL, environments(short("Pendulum-v1")))
    make.learn(STEPS, callback=Hasty())
    with pytest.warns(UserWarning, match="in the middle of a step; save it with AtomicCheckpoint"):
        load_checkpoint(FQL, folder, environments(short("Pendulum-v1")), device="cpu")


def test_environments_in_other_processes_continue(folder: RunFolder) -> None:
    check(QC, lambda: make_vec_env("Pendulum-v1", 2, seed=3), folder)


def test_a_process_without_the_wrapper_says_what_to_add(folder: RunFolder) -> None:
    def make() -> VecEnv:
        return SubprocVecEnv([short("Pendulum-v1")])

    env = make()
    learn(make_model(FQL, env), SAVED, folder)
    with pytest.warns(UserWarning, match=r"in other processes. Wrap each of them in flowpolicies\.training\.Resumable"):
        load_checkpoint(FQL, folder, env, device="cpu")
    env.close()


def test_a_damaged_state_or_one_of_another_checkpoint_is_refused(folder: RunFolder) -> None:
    model = learn(make_model(FQL, environments(short("Pendulum-v1"))), STEPS, folder)
    checkpoint = folder.latest()
    assert checkpoint is not None
    path = state_of(checkpoint)
    whole = path.read_bytes()
    with pytest.raises(ArtifactError, match=r"belongs to a checkpoint after 28 environment steps; needed .* 44 steps"):
        restore_state(model, path)
    np.savez(folder.path / "other.npz", a=np.zeros(3))
    other = (folder.path / "other.npz").read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        whole[: len(whole) // 2] + bytes(99) + whole[len(whole) // 2 :],
        b"",
        other,
    ):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"state\.npz"):
            restore_state(model, path)


SIMULATORS = ["MountainCarContinuous-v0", "Ant-v5", "Humanoid-v5", "Reacher-v5", "InvertedDoublePendulum-v5"]
OGBENCH = ["pointmaze-teleport-navigate-v0", "humanoidmaze-medium-navigate-singletask-v0"]
SLOW = ["cube-single-play-v0", "scene-play-singletask-v0"]


@pytest.mark.parametrize(
    "address",
    [
        *SIMULATORS,
        *(f"ogbench:{name}" for name in OGBENCH),
        *(pytest.param(f"ogbench:{name}", marks=pytest.mark.more) for name in SLOW),
    ],
)
def test_simulators_repeat_their_steps_from_a_state(address: str) -> None:
    rng = np.random.default_rng(0)

    def steps(env: VecEnv, actions: np.ndarray) -> list[Any]:
        return [plain(env.step(action[None])[:3]) for action in actions]

    def plain(outcome: Any) -> list[Any]:
        observations, *others = outcome
        return [*(observations.values() if isinstance(observations, dict) else [observations]), *others]

    one, other = environments(short(address)), environments(short(address))
    one.seed(1)
    one.reset()
    actions = rng.uniform(-1, 1, (24, *one.action_space.shape)).astype(np.float32)
    steps(one, actions[:13])
    state = capture_vec_env(one)
    other.seed(2)
    restore_vec_env(other, state)
    assert difference(steps(other, actions[13:]), steps(one, actions[13:])) is None


def test_the_list_of_episodes_continues() -> None:
    class Told(Walk):
        def reset(self, **options: Any) -> Any:
            seeds.append(options["seed"])
            return super().reset(**options)

    seeds: list[Any] = []
    one, other = (Resumable(SeededEpisodes(Told(), rank=1, n_envs=3)) for _ in range(2))
    one.reset(seed=8)
    one.reset()
    (inner, twin) = (env.env for env in (one, other))
    twin.set_state(inner.get_state())
    one.reset()
    other.reset()
    assert seeds[-1] == seeds[-2]
    assert len(set(seeds)) == 3


RUN = {
    "env": "Pendulum-v1",
    "seed": 2,
    "device": "cpu",
    "steps": 0,
    "online-steps": 150,
    "checkpoint-every": 20,
    "eval-every": 70,
    "eval-episodes": 1,
    "batch-size": 8,
    "learning-starts": 10,
    "horizon": 3,
    "flow-steps": 2,
    "actor-hidden-dims": 8,
    "value-hidden-dims": 8,
}
WALL_CLOCK = {"time/time_elapsed", "time/fps"}


def test_a_run_of_the_command_line_that_is_killed_online_ends_as_if_it_was_not(tmp_path: Path) -> None:
    words = ["train", "fql", *(str(word) for name, value in RUN.items() for word in (f"--{name}", value)), "--run-dir"]
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    assert main([*words, str(whole.path)]) == 0
    pid = os.fork()
    if pid == 0:
        try:
            main([*words, str(killed.path)])
        finally:
            os._exit(0)
    while len(killed.list_checkpoints()) < 2 and os.waitpid(pid, os.WNOHANG) == (0, 0):
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    disturb()
    assert main([*words, str(killed.path), "--resume"]) == 0
    one, other = (load_checkpoint(FQL, folder, device="cpu") for folder in (killed, whole))
    for part in ("policy", "optimizer"):
        assert_close(one.get_parameters()[part], other.get_parameters()[part], rtol=0, atol=0)
    rings = [model.transitions.online for model in (one, other)]
    assert rings[0] is not None
    assert rings[1] is not None
    assert_close(rings[0].columns, rings[1].columns, rtol=0, atol=0)
    assert rows(killed) == rows(whole) != []
    assert killed.evaluations.read_text() == whole.evaluations.read_text() != ""


def rows(folder: RunFolder) -> list[dict[str, str]]:
    """Rows of the log without the columns of the wall clock and without empty cells."""
    with open(folder.progress, newline="") as file:
        found = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if value and key not in WALL_CLOCK} for row in found]
