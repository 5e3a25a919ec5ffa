"""Replay buffers of Stable-Baselines3 in and out, against what the environments really did."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.save_util import save_to_pkl
from stable_baselines3.common.vec_env import DummyVecEnv

from flowpolicies.data import TransitionDataset, from_sb3_buffer, load_dataset, to_sb3_buffer
from flowpolicies.data.replay.buffer import TransitionBuffer

LIMIT, TERMINAL = 5, 7
ACTIONS = Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32))


class Counter(gymnasium.Env[Any, Any]):
    """Observation: episode and step. Even episodes are cut after 5 steps, odd ones terminate after 7."""

    action_space = ACTIONS

    def __init__(self, first: int = 0, kind: str = "box") -> None:
        self.first, self.kind, self.episode, self.step_number = first, kind, -1, 0
        box = Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = box if kind == "box" else Dict({"place": box, "time": Box(0, 99, (1,), np.float32)})

    def observe(self) -> Any:
        place = np.array([self.first + self.episode, self.step_number], np.float32)
        return place if self.kind == "box" else {"place": place, "time": place[1:]}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.step_number = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.step_number += 1
        odd = self.episode % 2 == 1
        reward = float(action[0]) * 100 + float(action[1])
        terminated, truncated = odd and self.step_number == TERMINAL, not odd and self.step_number == LIMIT
        return self.observe(), reward, terminated, truncated, {}


def collect(steps: int, *, n_envs: int = 1, kind: str = "box", **options: Any) -> SAC:
    """A model whose buffer holds random experience of `Counter`, the environments' episodes numbered apart."""
    envs = [lambda first=100 * index: Counter(first, kind) for index in range(n_envs)]
    policy = "MlpPolicy" if kind == "box" else "MultiInputPolicy"
    model = SAC(policy, DummyVecEnv(envs), learning_starts=10**6, seed=0, device="cpu", **options)
    return model.learn(steps)


def check_truth(dataset: TransitionDataset, *, time_limits: bool = True, terminal_next: bool = True) -> None:
    """What `Counter` does, row by row."""
    places = dataset.observations["place"] if isinstance(dataset.observations, dict) else dataset.observations
    later = dataset.next_observations
    later = later["place"] if isinstance(later, dict) else later
    for row in range(len(dataset)):
        episode, step = places[row]
        odd = episode % 100 % 2 == 1
        ends = step + 1 == (TERMINAL if odd else LIMIT)
        if terminal_next or not ends:
            assert later[row].tolist() == [episode, step + 1]
        assert dataset.rewards[row] == pytest.approx(dataset.actions[row] @ [100, 1], rel=1e-5, abs=1e-4)
        assert dataset.masks[row] == (0 if ends and (odd or not time_limits) else 1)
        follows = row + 1 < len(dataset) and places[row + 1].tolist() == [episode, step + 1]
        assert dataset.terminals[row] == (0 if follows else 1)


@pytest.mark.parametrize("kind", ["box", "dict"])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_saved_buffers_become_trajectories_of_each_environment(tmp_path: Path, n_envs: int, kind: str) -> None:
    model = collect(60, n_envs=n_envs, kind=kind, buffer_size=300)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    dataset = load_dataset(f"sb3:{tmp_path}/buffer.pkl", trust=True)
    assert len(dataset) == 60
    check_truth(dataset)
    places = dataset.observations["place"] if isinstance(dataset.observations, dict) else dataset.observations
    np.testing.assert_array_equal(places[:, 0] // 100, np.repeat(np.arange(n_envs), 60 // n_envs))
    assert dataset.action_space == ACTIONS
    assert dataset.actions.min() < -1
    assert dataset.actions.max() > 5
    assert dataset.provenance == {
        "name": "buffer",
        "source": "sb3",
        "file": "buffer.pkl",
        "n_envs": n_envs,
        "time_limits": "kept apart",
        "ends_without_done": 0,
    }


@pytest.mark.parametrize("n_envs", [1, 2])
def test_a_ring_that_went_round_is_read_from_its_oldest_row(n_envs: int) -> None:
    model = collect(78, n_envs=n_envs, buffer_size=30 * n_envs)
    assert model.replay_buffer is not None
    assert model.replay_buffer.full
    assert model.replay_buffer.pos != 0
    dataset = from_sb3_buffer(model.replay_buffer)
    assert len(dataset) == 30 * n_envs
    check_truth(dataset)
    assert isinstance(dataset.observations, np.ndarray)
    assert np.all(np.diff(dataset.observations[:30, 0]) >= 0)


@pytest.mark.parametrize(("steps", "rows"), [(25, 25), (78, 29)])
def test_memory_optimised_buffers(steps: int, rows: int) -> None:
    model = collect(
        steps,
        buffer_size=30,
        optimize_memory_usage=True,
        replay_buffer_kwargs={"handle_timeout_termination": False},
    )
    dataset = from_sb3_buffer(model.replay_buffer)
    assert len(dataset) == rows
    check_truth(dataset, time_limits=False, terminal_next=False)
    assert dataset.provenance["time_limits"] == "as terminations"


def test_a_reset_without_an_end_ends_a_trajectory() -> None:
    model = collect(8, buffer_size=100)  # Five steps, and three of the next episode.
    model.learn(8, reset_num_timesteps=True)  # Resets the environment.
    dataset = from_sb3_buffer(model.replay_buffer)
    check_truth(dataset)
    assert dataset.provenance["ends_without_done"] == 1
    assert 7 in dataset.episode_ends
    assert dataset.masks[7] == 1


def test_buffers_of_old_versions_have_no_timeouts() -> None:
    model = collect(20, buffer_size=100)
    assert model.replay_buffer is not None
    del model.replay_buffer.timeouts, model.replay_buffer.handle_timeout_termination
    dataset = from_sb3_buffer(model.replay_buffer)
    check_truth(dataset, time_limits=False)
    assert dataset.provenance["time_limits"] == "as terminations"


def test_pickles_need_trust_and_are_not_touched_without(tmp_path: Path) -> None:
    path = tmp_path / "buffer.pkl"
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    path.write_bytes(pickle.dumps(Trap()))
    message = r"buffer\.pkl': it is a pickle, and reading a pickle runs whatever its author put .*pass trust=True"
    with pytest.raises(ValueError, match=message):
        load_dataset(f"sb3:{path}")
    assert not marker.exists()
    with pytest.raises(ValueError, match=r"expected one of Stable-Baselines3's replay buffers, got NoneType"):
        load_dataset(f"sb3:{path}", trust=True)
    assert marker.exists()


def test_wrong_files_and_buffers_are_explained(tmp_path: Path) -> None:
    save_to_pkl(tmp_path / "buffer.pkl", collect(20, buffer_size=50).replay_buffer)
    content = (tmp_path / "buffer.pkl").read_bytes()
    (tmp_path / "half.pkl").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.pkl").write_text("hello")
    for name in ("half", "text"):
        with pytest.raises(ValueError, match=rf"{name}\.pkl': cannot read it as a pickled replay buffer: "):
            load_dataset(f"sb3:{tmp_path}/{name}.pkl", trust=True)
    with pytest.raises(FileNotFoundError, match=r"no such file: '.*buffer1\.pkl'\. Did you mean 'buffer\.pkl'\?"):
        load_dataset(f"sb3:{tmp_path}/buffer1.pkl", trust=True)
    box = Box(-1, 1, (2,), np.float32)
    with pytest.raises(ValueError, match=r"got TransitionBuffer\. Read a buffer of flowpolicies by model\.load_replay"):
        from_sb3_buffer(TransitionBuffer(10, box, box, device="cpu"))
    with pytest.raises(ValueError, match=r"replay buffer 'mine' holds no transition"):
        from_sb3_buffer(ReplayBuffer(10, box, box, device="cpu"), name="mine")
    with pytest.raises(ValueError, match=r"holds actions of Discrete\(3\); flow policies need a Box"):
        from_sb3_buffer(ReplayBuffer(10, box, Discrete(3), device="cpu"))


def make_dataset(kind: str = "box") -> TransitionDataset:
    """A mask of 0 inside a trajectory (row 1), a termination (3), a time limit (6), and the end of the data (8)."""
    generator = np.random.default_rng(0)
    rows = 9
    observations, later = generator.normal(size=(2, rows, 2))
    later[:-1] = np.where(np.isin(np.arange(rows - 1), [3, 6])[:, None], later[:-1], observations[1:])
    return TransitionDataset.from_arrays(
        observations if kind == "box" else {"a": observations, "b": observations[:, :1]},
        generator.uniform(ACTIONS.low, ACTIONS.high, (rows, 2)),
        np.arange(rows),
        later if kind == "box" else {"a": later, "b": later[:, :1]},
        masks=[1, 0, 1, 0, 1, 1, 1, 1, 1],
        terminals=[0, 0, 0, 1, 0, 0, 1, 0, 1],
        action_space=ACTIONS,
    )


@pytest.mark.parametrize("kind", ["box", "dict"])
@pytest.mark.parametrize("buffer_size", [None, 20])
def test_stock_buffers_sample_the_datasets_transitions(kind: str, buffer_size: int | None) -> None:
    dataset = make_dataset(kind)
    buffer = to_sb3_buffer(dataset, device="cpu", buffer_size=buffer_size)
    assert type(buffer) is (ReplayBuffer if kind == "box" else DictReplayBuffer)
    assert buffer.size() == 9
    assert (buffer.pos, buffer.full) == ((0, True) if buffer_size is None else (9, False))
    batch = buffer.sample(200)
    rows = batch.rewards.squeeze(1).long()  # Rewards number the rows.
    assert set(rows.tolist()) == set(range(9))
    for own, sampled in (
        (dataset.observations, batch.observations),
        (dataset.next_observations, batch.next_observations),
    ):
        parts = own if isinstance(own, dict) else {"": own}
        for key, array in parts.items():
            got = sampled[key] if isinstance(sampled, dict) else sampled
            torch.testing.assert_close(got, torch.from_numpy(array)[rows], rtol=0, atol=0)
    torch.testing.assert_close(batch.dones.squeeze(1), 1 - torch.from_numpy(dataset.masks)[rows])
    scaled = 2 * (dataset.actions - ACTIONS.low) / (ACTIONS.high - ACTIONS.low) - 1
    torch.testing.assert_close(batch.actions, torch.from_numpy(scaled)[rows])


@pytest.mark.parametrize("kind", ["box", "dict"])
def test_round_trip_through_a_stock_buffer(tmp_path: Path, kind: str) -> None:
    dataset = make_dataset(kind)
    save_to_pkl(tmp_path / "buffer.pkl", to_sb3_buffer(dataset, device="cpu", buffer_size=12))
    back = load_dataset(f"sb3:{tmp_path}/buffer.pkl", trust=True)
    arrays, others = dataset.arrays(), back.arrays()
    assert arrays.keys() == others.keys()
    for key in arrays:
        if key == "actions":
            np.testing.assert_allclose(others[key], arrays[key], rtol=1e-6, atol=1e-6)
        elif key == "terminals":
            # Stable-Baselines3 knows no terminal state inside a trajectory: row 1 becomes an end.
            np.testing.assert_array_equal(others[key], [0, 1, 0, 1, 0, 0, 1, 0, 1])
        else:
            np.testing.assert_array_equal(others[key], arrays[key])


def test_unit_actions_survive_to_the_last_bit() -> None:
    rows = np.linspace(-1, 1, 99, dtype=np.float32)[:, None] ** 5
    dataset = TransitionDataset.from_arrays(rows, rows, rows[:, 0], rows, terminations=rows[:, 0] == 1)
    np.testing.assert_array_equal(from_sb3_buffer(to_sb3_buffer(dataset, device="cpu")).actions, rows)


def test_stock_algorithms_train_on_it() -> None:
    dataset = make_dataset()
    env = Counter()
    model = SAC("MlpPolicy", env, device="cpu", batch_size=4, buffer_size=1, seed=0)
    model.replay_buffer = to_sb3_buffer(dataset, device="cpu", buffer_size=12)
    model.learn(1)  # Sets the logger up, and adds a step.
    model.train(gradient_steps=2, batch_size=4)
    assert model.replay_buffer.size() == 10


def test_the_method_is_deprecated() -> None:
    with pytest.warns(DeprecationWarning, match=r"is now flowpolicies\.data\.to_sb3_buffer"):
        buffer = make_dataset().to_sb3_buffer(device="cpu", buffer_size=20)
    assert isinstance(buffer, ReplayBuffer)
    assert buffer.buffer_size == 20


def test_a_buffer_of_one_transition() -> None:
    buffer = ReplayBuffer(5, Box(-1, 1, (2,)), Box(-1, 1, (1,)), "cpu")
    buffer.add(np.zeros((1, 2)), np.ones((1, 2)), np.zeros((1, 1)), np.array([3.0]), np.array([False]), [{}])
    dataset = from_sb3_buffer(buffer)
    assert dataset.rewards.tolist() == [3]
    assert dataset.terminals.tolist() == [1]


def test_a_buffer_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match=r"buffer_size=8 is less than the 9 transitions of 'arrays'"):
        to_sb3_buffer(make_dataset(), buffer_size=8)


@pytest.mark.parametrize("content", [b"\x80garbage", b"cos\nsystem_that_is_not_there\n.", b"", b"hello world"])
def test_what_is_no_pickle_is_explained(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "buffer.pkl"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"buffer\.pkl': cannot read it as a pickled replay buffer: .*save_replay_buffer"
    ):
        load_dataset(f"sb3:{path}", trust=True)
