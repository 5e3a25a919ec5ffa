"""Online transitions from another buffer, and copies of buffers."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer, RolloutBuffer

from flowpolicies.core import Batch
from flowpolicies.data import TransitionDataset
from flowpolicies.data.replay.buffer import TransitionBuffer

OBS, ACT = spaces.Box(-np.inf, np.inf, (1,), np.float32), spaces.Box(-2, 2, (1,), np.float32)
BOTH = spaces.Dict({"b": OBS, "a": spaces.Box(-9, 9, (2,), np.float32)})


def make(space: spaces.Space[Any] = OBS, n_envs: int = 1, size: int = 20, **options: Any) -> TransitionBuffer:
    return TransitionBuffer(size, space, ACT, "cpu", n_envs, **{"seed": 0, "gamma": 0.9, **options})


def fill(buffer: ReplayBuffer, steps: int, *, first: int = 0) -> None:
    """Step t of environment e: observation 100 e + t, the next observation one more, reward t; ends at 3 and 5."""
    for t in range(first, first + steps):
        values = np.array([100.0 * e + t for e in range(buffer.n_envs)], np.float32)
        obs: Any = values[:, None]
        following: Any = obs + 1
        if isinstance(buffer.observation_space, spaces.Dict):
            obs, following = ({"b": o, "a": np.repeat(o / 100, 2, 1)} for o in (obs, following))
        done, infos = np.full(buffer.n_envs, t in (3, 5)), [{"TimeLimit.truncated": t == 5}] * buffer.n_envs
        buffer.add(obs, following, values[:, None] / 1000, np.full(buffer.n_envs, float(t)), done, infos)


def dataset(rows: int = 5) -> TransitionDataset:
    observations = -1.0 - np.arange(rows, dtype=np.float32)[:, None]
    return TransitionDataset.from_arrays(
        observations,
        np.zeros((rows, 1)),
        np.full(rows, -1.0),
        observations - 1,
        terminations=np.arange(rows) == rows - 1,
        observation_space=OBS,
        action_space=ACT,
    )


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("steps", [7, 26], ids=["part", "overwritten"])
@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("kind", [TransitionBuffer, ReplayBuffer, NStepReplayBuffer, DictReplayBuffer])
def test_the_online_part_is_replaced_and_nothing_else(kind: Any, n_envs: int, steps: int) -> None:
    space = BOTH if kind is DictReplayBuffer else OBS
    other = kind(20, space, ACT, "cpu", n_envs)
    fill(other, steps)
    expected, adopting = (make(space, n_envs, n_steps=3) for _ in range(2))
    fill(expected, steps)
    fill(adopting, 2, first=50)
    adopting.adopt(pickle.loads(pickle.dumps(other)))
    assert (adopting.pos, adopting.full, adopting.size()) == (expected.pos, expected.full, expected.size())
    assert (adopting.gamma, adopting.n_steps) == (0.9, 3)
    for buffer in (adopting, expected):
        buffer.generator.manual_seed(1)
    assert same(adopting.sample(100), expected.sample(100))
    for buffer in (adopting, expected):
        fill(buffer, 3, first=steps)
    assert same(adopting.sample(100), expected.sample(100))


def test_the_dataset_stays_and_sizes_follow() -> None:
    buffer, other = make(size=4, horizon=2), make(size=20, gamma=0.1, seed=5, n_steps=3)
    buffer.attach(dataset())
    fill(other, 7)
    generator = buffer.generator.get_state()
    buffer.adopt(other)
    assert torch.equal(buffer.generator.get_state(), generator)
    assert (buffer.size(), buffer.buffer_size, buffer.horizon, buffer.gamma) == (12, 7, 2, 0.9)
    assert buffer.full
    assert min(buffer.sample(100).rewards.tolist()) < 0
    larger = make(size=50)
    larger.adopt(other)
    assert (larger.buffer_size, larger.pos, larger.full) == (50, 7, False)
    larger.adopt(make())
    assert (larger.buffer_size, larger.size(), larger.pos) == (50, 0, 0)
    assert other.size() == 7
    fill(other, 1)
    assert buffer.size() == 12, "the two share nothing"


def test_a_reset_that_stable_baselines3_does_not_mark_ends_an_episode() -> None:
    stock = ReplayBuffer(20, OBS, ACT, "cpu")
    fill(stock, 2)
    fill(stock, 2, first=10)
    buffer = make(n_steps=3)
    buffer.adopt(stock)
    batch = buffer.sample(100)
    assert set(batch.next_observations[batch.observations[:, 0] < 5].flatten().tolist()) == {2}


def test_buffers_without_next_observations() -> None:
    stock = ReplayBuffer(8, OBS, ACT, "cpu", optimize_memory_usage=True, handle_timeout_termination=False)
    fill(stock, 10)
    buffer = make()
    buffer.adopt(stock)
    batch = buffer.sample(200)
    assert set(batch.observations.flatten().tolist()) == {3, 4, 5, 6, 7, 8, 9}
    ends = (batch.observations[:, 0] == 3) | (batch.observations[:, 0] == 5)
    assert torch.equal(batch.discounts == 0, ends)


def test_what_cannot_be_adopted() -> None:
    with pytest.raises(TypeError, match=r"expected a replay buffer: .* got RolloutBuffer"):
        make().adopt(RolloutBuffer(5, OBS, ACT, "cpu"))
    with pytest.raises(TypeError, match="got dict"):
        make().adopt({})
    with pytest.raises(ValueError, match=r"buffer's observation_space is Dict.* but the model's is Box"):
        make().adopt(make(BOTH))
    with pytest.raises(ValueError, match=r"buffer's action_space is Box\(-1.*but the model's is Box\(-2"):
        make().adopt(TransitionBuffer(5, OBS, spaces.Box(-1, 1, (1,), np.float32), "cpu"))
    with pytest.raises(ValueError, match=r"steps of 3 environments, but the model has 1\. Call set_env with 3"):
        make().adopt(ReplayBuffer(9, OBS, ACT, "cpu", 3))


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
@pytest.mark.parametrize("options", [{}, {"n_steps": 3}, {"windows": "episodes"}], ids=str)
def test_copies_are_complete_and_share_nothing(way: Any, options: dict[str, Any]) -> None:
    buffer = make(n_envs=2, rotate_every=3, **options)
    buffer.attach(dataset())
    fill(buffer, 7)
    twin = way(buffer)
    assert twin.offline is not buffer.offline
    assert twin.online is not buffer.online
    draws = [buffer.sample(40), buffer.sample(40)]
    fill(buffer, 5, first=70)
    buffer.end_episodes()
    buffer.gamma = 0.1
    assert same(twin.sample(40), draws[0])
    assert same(twin.sample(40), draws[1])
    again = way(twin)
    twin.reset()
    twin.sample(5)
    assert (again.size(), twin.size()) == (19, 5)


def test_pickles_say_what_is_missing(tmp_path: Path) -> None:
    buffer = make()
    buffer.attach(dataset())
    fill(buffer, 7)
    loaded = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(buffer))))
    with pytest.warns(UserWarning, match="A dataset of 5 transitions was not saved with this buffer: attach it again"):
        loaded.sample(5)
    loaded = pickle.loads(pickle.dumps(buffer))
    loaded.attach(dataset())
    assert same(loaded.sample(20), buffer.sample(20))
    empty = make()
    empty.attach(dataset())
    with pytest.raises(ValueError, match=r"0 transitions and no window of 1 steps\. A dataset of 5 .* was not saved"):
        pickle.loads(pickle.dumps(empty)).sample(1)


def test_a_subprocess_gets_a_buffer_of_its_own(tmp_path: Path) -> None:
    buffer, path = make(), tmp_path / "buffer.pkl"
    fill(buffer, 7)
    path.write_bytes(pickle.dumps(buffer))
    code = f"import pickle; print(pickle.load(open({str(path)!r}, 'rb')).sample(5).observations.flatten().tolist())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(buffer.sample(5).observations.flatten().tolist())


def test_a_buffer_of_version_0_1() -> None:
    """Files of versions before the ring had its own class lack its attributes."""
    buffer = make(size=40, n_envs=2, n_steps=3)
    fill(buffer, 7)
    state = copy.deepcopy(buffer.__getstate__())
    for name in ("requested_size", "window", "keep_infos", "online_goals", "relabelling", "missing", "cut", "needed"):
        del state[name]
    state |= {"gamma": state.pop("_gamma"), "buffer_size": 40}
    del state["optimize_memory_usage"]
    for part in (state["online"], state["online"].episodes):
        part.__dict__.pop("infos", None)
        part.__dict__.pop("_sorted", None)
    old = TransitionBuffer.__new__(TransitionBuffer)
    old.__setstate__(state)
    assert (old.gamma, old.n_steps, old.buffer_size) == (0.9, 3, 20)
    assert same(old.sample(30), buffer.sample(30))
    adopting = make(n_envs=2)
    adopting.adopt(old)
    assert adopting.size() == 14


def test_the_environment_of_the_spaces_does_not_matter() -> None:
    env = gym.make("Pendulum-v1")
    stock = ReplayBuffer(5, env.observation_space, env.action_space, "cpu")
    stock.add(np.zeros((1, 3)), np.zeros((1, 3)), np.zeros((1, 1)), np.ones(1), np.zeros(1), [{}])
    unbounded = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    buffer = TransitionBuffer(5, unbounded, env.action_space, "cpu")
    buffer.adopt(stock)
    assert buffer.size() == 1
