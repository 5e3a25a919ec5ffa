"""TransitionBuffer: windows, action chunks, n-step returns, the ring of online transitions, several environments."""

import io
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from flowpolicies.data import TransitionDataset
from flowpolicies.data.replay.buffer import TransitionBuffer

OBS = spaces.Box(-np.inf, np.inf, (1,), np.float32)
ACT = spaces.Box(-1.0, 1.0, (2,), np.float32)


def dataset(terminals: list[int], masks: list[int] | None = None, action_space: spaces.Box = ACT) -> TransitionDataset:
    """Row i: observation i, action (i, -i) / 100, reward i + 1, next observation i + 0.5."""
    n = len(terminals)
    i = np.arange(n, dtype=np.float32)
    return TransitionDataset.from_arrays(
        i[:, None],
        np.stack([i, -i], -1) / 100,
        i + 1,
        i[:, None] + 0.5,
        masks=np.ones(n, np.float32) if masks is None else np.array(masks, np.float32),
        terminals=np.array(terminals, np.float32),
        observation_space=OBS,
        action_space=action_space,
    )


def make(**options) -> TransitionBuffer:
    return TransitionBuffer(
        **{"buffer_size": 100, "observation_space": OBS, "action_space": ACT, "device": "cpu", "seed": 0, **options}
    )


def reference(rewards, masks, terminals, nobs, start: int, length: int, gamma: float):
    """The recursion of `Dataset.sample_sequence` in https://github.com/ColinQiyangLi/qam, utils/datasets.py."""
    ended, valid, total, mask, following = terminals[start], 1.0, rewards[start], masks[start], nobs[start]
    for j in range(1, length):
        valid = 1.0 - ended
        ended = max(ended, terminals[start + j])
        if valid:
            total += gamma**j * rewards[start + j]
            mask = min(mask, masks[start + j])
            following = nobs[start + j]
    return total, mask, valid, following


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 4),
    ends=st.lists(st.booleans(), min_size=6, max_size=12),
    kills=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_windows_follow_the_reference_recursion(length: int, ends: list[bool], kills: list[bool]) -> None:
    data = dataset([int(e) for e in ends], [1 - int(k) for k in kills[: len(ends)]])
    buffer = make(horizon=length, gamma=0.9)
    buffer.attach(data)
    store = buffer.offline
    columns = [data.rewards, data.masks, data.terminals, data.next_observations[:, 0]]
    for start in range(len(data) - length + 1):
        expected = reference(*columns, start, length, 0.9)
        got = [store.cached.rewards[start], store.cached.discounts[start] / 0.9**length]
        got.append(float(store.cached.valid[start]))
        got.append(float(data.next_observations[start + store.cached.span[start], 0]))
        assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("end", "valid", "reward", "following"), [(0, 0, 1.0, 0.5), (1, 0, 1 + 0.9 * 2, 1.5), (2, 1, 1 + 1.8 + 2.43, 2.5)]
)
def test_an_end_at_each_position_of_a_window_of_three(end: int, valid: int, reward: float, following: float) -> None:
    terminals = [0, 0, 0]
    terminals[end] = 1
    buffer = make(horizon=3, gamma=0.9)
    buffer.attach(dataset(terminals))
    batch = buffer.sample(4)
    torch.testing.assert_close(batch.rewards, torch.full((4,), reward))
    torch.testing.assert_close(batch.valid, torch.full((4,), float(valid)))
    torch.testing.assert_close(batch.next_observations, torch.full((4, 1), following))
    torch.testing.assert_close(batch.discounts, torch.full((4,), 0.9**3))
    torch.testing.assert_close(batch.actions[0], torch.tensor([0, 0, 0.01, -0.01, 0.02, -0.02]))
    assert batch.action_mask.tolist() == [[1.0] * 2 * (end + 1) + [0.0] * 2 * (2 - end)] * 4


def test_termination_stops_the_bootstrap_and_a_time_limit_does_not() -> None:
    buffer = make(gamma=0.9)
    buffer.attach(dataset([0, 1, 1], masks=[1, 0, 1]))
    batch = buffer.sample(200)
    by_row = {int(o): float(d) for o, d in zip(batch.observations[:, 0], batch.discounts, strict=True)}
    assert by_row == pytest.approx({0: 0.9, 1: 0.0, 2: 0.9})
    assert batch.valid.all()


def test_n_steps_keep_the_first_action_only() -> None:
    buffer = make(n_steps=3, gamma=0.9)
    buffer.attach(dataset([0, 0, 0, 1]))
    batch = buffer.sample(50)
    assert batch.actions.shape == (50, 2)
    row = batch.observations[:, 0] == 1
    torch.testing.assert_close(batch.rewards[row][0], torch.tensor(2 + 0.9 * 3 + 0.81 * 4))
    with pytest.raises(ValueError, match=r"horizon=2 .* n_steps=3 exclude each other"):
        make(horizon=2, n_steps=3)


def test_starts_are_uniform_and_stay_inside() -> None:
    buffer = make(horizon=3)
    buffer.attach(dataset([0] * 9 + [1]))
    starts = torch.cat([buffer.sample(500).observations[:, 0] for _ in range(8)])
    counts = torch.bincount(starts.long(), minlength=10)
    assert counts[8:].sum() == 0
    assert (counts[:8] - 500).abs().max() < 100


def test_next_actions_follow_the_window() -> None:
    buffer = make(horizon=2)
    buffer.attach(dataset([0] * 5 + [1]))
    batch = buffer.sample(100)
    row = batch.observations[:, 0] == 1
    torch.testing.assert_close(batch.next_actions[row][0], torch.tensor([0.03, -0.03, 0.04, -0.04]))
    without = make(horizon=2, next_actions=False)
    without.attach(dataset([0] * 5 + [1]))
    assert without.sample(10).next_actions.shape == (10, 0)
    for t in range(6):
        add(without, [t], [False], [False])
    assert without.sample(100).next_actions.shape == (100, 0)


def test_actions_are_scaled_from_asymmetric_bounds() -> None:
    space = spaces.Box(np.array([0.0, -1.0], np.float32), np.array([0.04, 3.0], np.float32))
    buffer = make(action_space=space)
    buffer.attach(dataset([0, 0, 0, 1], action_space=space))
    batch = buffer.sample(50)
    row = batch.observations[:, 0] == 3
    torch.testing.assert_close(batch.actions[row][0], torch.tensor([0.5, 2 * (-0.03 + 1) / 4 - 1]))


def add(buffer: TransitionBuffer, values: list[float], done: list[bool], truncated: list[bool]) -> None:
    obs = np.array(values, np.float32)[:, None]
    action = np.repeat(obs / 1000, 2, -1)
    infos = [{"TimeLimit.truncated": t} for t in truncated]
    buffer.add(obs, obs + 0.5, action, np.array(values), np.array(done), infos)


def test_online_steps_of_several_environments_stay_apart() -> None:
    buffer = make(n_envs=2, horizon=3, gamma=1.0)
    for t in range(10):
        add(buffer, [t, 100 + t], [t == 4, False], [t == 4, False])
    batch = buffer.sample(400)
    start = batch.observations[:, 0]
    assert set(start.int().tolist()) == {*range(8), *range(100, 108)}
    second = start >= 100
    torch.testing.assert_close(batch.rewards[second], 3 * start[second] + 3)
    torch.testing.assert_close(batch.next_observations[second, 0], start[second] + 2.5)
    crossing = (start >= 3) & (start <= 4)
    assert torch.equal(batch.valid == 0, crossing)
    assert batch.discounts.all()


def test_termination_online_stops_the_bootstrap() -> None:
    buffer = make(gamma=0.9)
    add(buffer, [1.0], [True], [False])
    assert float(buffer.sample(1).discounts) == 0
    buffer = make(gamma=0.9)
    add(buffer, [1.0], [True], [True])
    assert float(buffer.sample(1).discounts) == pytest.approx(0.9)


def test_a_full_ring_keeps_the_newest_and_never_crosses_its_head() -> None:
    buffer = make(buffer_size=12, n_envs=2, horizon=3, gamma=1.0)
    for t in range(15):
        add(buffer, [t, 100 + t], [False, False], [False, False])
    assert buffer.full
    batch = buffer.sample(300)
    start = batch.observations[:, 0]
    assert set(start.int().tolist()) == {9, 10, 11, 12, 109, 110, 111, 112}
    torch.testing.assert_close(batch.rewards, 3 * start + 3)
    torch.testing.assert_close(batch.actions[:, ::2], (start[:, None] + torch.arange(3)) / 1000)


def test_offline_and_online_are_sampled_as_one() -> None:
    buffer = make(buffer_size=50)
    buffer.attach(dataset([0] * 29 + [1]))
    for t in range(10):
        add(buffer, [900.0 + t], [False], [False])
    start = torch.cat([buffer.sample(500).observations[:, 0] for _ in range(10)])
    assert buffer.size() == 40
    assert float((start >= 900).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert len(set(start.tolist())) == 40


def test_same_seed_same_indices_whatever_numpy_s_global_state() -> None:
    buffers = [make(seed=3), make(seed=3), make(seed=4)]
    for i, buffer in enumerate(buffers):
        np.random.seed(i)
        torch.manual_seed(i)
        buffer.attach(dataset([0] * 50))
    draws = [buffer.sample(20).observations for buffer in buffers]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_pickle_keeps_online_data_and_generator_but_not_the_dataset() -> None:
    buffer = make(buffer_size=10_000)
    buffer.attach(dataset([0] * 50))
    for t in range(20):
        add(buffer, [float(t)], [False], [False])
    text = pickle.dumps(buffer)
    assert len(text) < 20_000, "rows that were never written must not be saved"
    copy = pickle.load(io.BytesIO(text))
    assert copy.offline is None
    assert copy.size() == 20
    add(copy, [20.0], [False], [False])
    add(buffer, [20.0], [False], [False])
    copy.attach(dataset([0] * 50))
    assert torch.equal(copy.sample(30).observations, buffer.sample(30).observations)


def test_a_buffer_that_an_older_version_saved_can_be_sampled() -> None:
    buffer = make(rotate_every=2)
    for t in range(20):
        add(buffer, [float(t)], [False], [False])
    state = buffer.__getstate__()
    state["turns"] = state.pop("rotation")  # Name of the attribute at that time.
    old = TransitionBuffer.__new__(TransitionBuffer)
    old.__setstate__(state)
    assert torch.equal(old.sample(30).observations, buffer.sample(30).observations)


def test_images_stay_bytes_and_dicts_become_vectors() -> None:
    image = spaces.Box(0, 255, (3, 4, 4), np.uint8)
    buffer = make(observation_space=image)
    frame = np.random.default_rng(0).integers(0, 256, (1, 3, 4, 4), dtype=np.uint8)
    buffer.add(frame, frame, np.zeros((1, 2)), np.zeros(1), np.zeros(1, bool), [{}])
    batch = buffer.sample(2)
    assert batch.observations.dtype == torch.uint8
    np.testing.assert_array_equal(batch.observations[0], frame.reshape(-1))
    both = spaces.Dict({"b": spaces.Box(-1, 1, (2,)), "a": OBS})
    buffer = make(observation_space=both)
    obs = {"a": np.array([[7.0]], np.float32), "b": np.array([[1.0, 2.0]], np.float32)}
    buffer.add(obs, obs, np.zeros((1, 2)), np.zeros(1), np.zeros(1, bool), [{}])
    assert sorted(buffer.sample(1).observations[0].tolist()) == [1, 2, 7]


def test_vec_normalize_is_applied_when_sampling() -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    env.obs_rms.mean, env.obs_rms.var = np.full(3, 10.0), np.full(3, 4.0)
    env.ret_rms.var = np.array(25.0)
    space = env.observation_space
    buffer = make(observation_space=space, horizon=2, gamma=1.0)
    for reward in (5.0, 10.0):
        buffer.add(
            np.full((1, 3), 12.0), np.full((1, 3), 14.0), np.zeros((1, 2)), np.array([reward]), np.zeros(1, bool), [{}]
        )
    batch = buffer.sample(1, env=env)
    torch.testing.assert_close(batch.observations, torch.ones(1, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(batch.next_observations, torch.full((1, 3), 2.0), atol=1e-4, rtol=0)
    assert float(batch.rewards) == pytest.approx(3.0, abs=1e-4)


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match="no window of 1 steps"):
        make().sample(4)
    with pytest.raises(ValueError, match="the dataset has 3 transitions, fewer than one window of 5 steps"):
        make(horizon=5).attach(dataset([0, 0, 1]))
    with pytest.raises(ValueError, match="optimize_memory_usage=True is not supported"):
        make(optimize_memory_usage=True)


def test_memory_maps_are_read_in_place(tmp_path) -> None:
    arrays = {}
    for name in ("observations", "actions", "rewards", "next_observations", "masks", "terminals"):
        np.save(tmp_path / f"{name}.npy", getattr(dataset([0] * 49 + [1]), name))
        arrays[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    mapped = TransitionDataset(**arrays, observation_space=OBS, action_space=ACT)
    buffers = [make(horizon=3), make(horizon=3)]
    buffers[0].attach(dataset([0] * 49 + [1]))
    buffers[1].attach(mapped)
    assert set(buffers[1].offline.in_files) == {"observations", "next_observations", "actions"}
    assert buffers[1].offline.columns["rewards"].data_ptr() == arrays["rewards"].ctypes.data, "rewards were copied"
    for a, b in zip(buffers[0].sample(20), buffers[1].sample(20), strict=True):
        assert torch.equal(a, b)


def test_a_share_of_each_batch_comes_from_the_dataset() -> None:
    buffer = make(offline_share=0.25)
    buffer.attach(dataset([0] * 9 + [1]))
    assert float(buffer.sample(8).rewards.min()) > 0
    for _ in range(3):
        buffer.add(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 2)), np.array([-1.0]), np.zeros(1, bool), [{}])
    for size, online in ((8, 6), (6, 4), (1, 1)):
        assert int((buffer.sample(size).rewards < 0).sum()) == online
    with pytest.raises(ValueError, match="offline_share must be between 0 and 1"):
        make(offline_share=1.5)
