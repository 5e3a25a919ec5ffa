"""RQL's windows: the episode is drawn uniformly, and its last step is repeated after its end."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch.utils._python_dispatch import TorchDispatchMode

from flowpolicies.core import Batch
from flowpolicies.data import TransitionDataset
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.data.replay.episodes import Episodes, choose_episodes

OBS = spaces.Box(-np.inf, np.inf, (1,), np.float32)
ACT = spaces.Box(-1.0, 1.0, (2,), np.float32)
GAMMA = 0.9


def dataset(terminals: list[int], masks: list[int] | None = None) -> TransitionDataset:
    """Row i: observation i, action (i, -i) / 1000, reward i + 1, next observation i + 0.5."""
    n = len(terminals)
    i = np.arange(n, dtype=np.float32)
    return TransitionDataset.from_arrays(
        i[:, None],
        np.stack([i, -i], -1) / 1000,
        i + 1,
        i[:, None] + 0.5,
        masks=np.ones(n, np.float32) if masks is None else np.array(masks, np.float32),
        terminals=np.array(terminals, np.float32),
        observation_space=OBS,
        action_space=ACT,
    )


def episodes(*lengths: int) -> list[int]:
    return [int(i == length - 1) for length in lengths for i in range(length)]


def make(**options) -> TransitionBuffer:
    defaults = {"buffer_size": 100, "observation_space": OBS, "action_space": ACT, "device": "cpu", "gamma": GAMMA}
    return TransitionBuffer(**{**defaults, "seed": 0, "windows": "episodes", **options})


def row(batch: Batch, start: int) -> Batch:
    """The first row of the batch that starts at observation `start`."""
    index = int((batch.observations[:, 0] - start).abs().argmin())
    assert float(batch.observations[index, 0]) == pytest.approx(start, abs=1e-3)
    return Batch(*(column[index] for column in batch))


@pytest.mark.parametrize(
    ("before_end", "valid", "steps"), [(6, 1, 5), (5, 1, 5), (4, 1, 5), (3, 0, 4), (2, 0, 3), (1, 0, 2)]
)
def test_windows_of_five_near_the_end_of_an_episode(before_end: int, valid: int, steps: int) -> None:
    buffer = make(horizon=5)
    buffer.attach(dataset(episodes(8)))
    start = 7 - before_end
    got = row(buffer.sample(200), start)
    taken = [min(start + k, 7) for k in range(5)]
    assert float(got.valid) == valid
    assert float(got.rewards) == pytest.approx(sum(GAMMA**k * (taken[k] + 1) for k in range(steps)))
    torch.testing.assert_close(got.actions, torch.tensor([x / 1000 for i in taken for x in (i, -i)]))
    assert got.action_mask.tolist() == [1.0] * 2 * steps + [0.0] * 2 * (5 - steps)
    assert float(got.discounts) == pytest.approx(GAMMA**5)
    # At T - u = 4 the successor 7.5 is known, but RQL's code bootstraps from the last observed state.
    assert float(got.next_observations) == min(start + 5, 7)


def test_only_the_last_mask_of_a_window_counts() -> None:
    buffer = make(horizon=2)
    buffer.attach(dataset(episodes(5), masks=[1, 0, 1, 1, 0]))
    batch = buffer.sample(200)
    discounts = [float(row(batch, start).discounts) for start in range(4)]
    assert discounts == pytest.approx([0, GAMMA**2, GAMMA**2, 0])


def test_a_terminal_transition_is_never_a_start() -> None:
    buffer = make()
    buffer.attach(dataset(episodes(3, 4, 2)))
    batch = buffer.sample(500)
    assert set(batch.observations[:, 0].int().tolist()) == {0, 1, 3, 4, 5, 7}
    torch.testing.assert_close(batch.next_observations, batch.observations + 1)
    assert batch.valid.all()
    assert batch.action_mask.all()


def specified(data: TransitionDataset, start: int, last: int, h: int) -> tuple[float, float, float, float, list[float]]:
    """The rules of docs/algorithms/rql.md, written out: reward, discount, valid, next observation, action mask."""
    c = [min(start + k, last) for k in range(h + 1)]
    z = [0.0] + [float(data.terminals[c[k - 1]]) for k in range(1, h + 1)]
    reward = sum(GAMMA**k * (1 - z[k]) * float(data.rewards[c[k]]) for k in range(h))
    mask = [1 - z[k] for k in range(h) for _ in range(2)]
    discount = GAMMA**h * float(data.masks[c[h - 1]])
    return reward, discount, float(sum(z) <= 1), float(data.observations[c[h], 0]), mask


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 7), min_size=2, max_size=5), h=st.integers(1, 5), seed=st.integers(0, 99))
def test_every_window_is_the_specified_one(lengths: list[int], h: int, seed: int) -> None:
    if max(lengths) < 2 or sum(lengths) < h:
        return
    masks = np.random.default_rng(seed).integers(0, 2, sum(lengths)).tolist()
    data, buffer = dataset(episodes(*lengths), masks), make(horizon=h, seed=seed)
    buffer.attach(data)
    batch = buffer.sample(100)
    lasts = np.cumsum(lengths) - 1
    for start in set(batch.observations[:, 0].int().tolist()):
        got = row(batch, start)
        reward, discount, valid, following, mask = specified(data, start, int(lasts[lasts >= start][0]), h)
        found = [float(got.rewards), float(got.discounts), float(got.valid), float(got.next_observations)]
        assert found == pytest.approx([reward, discount, valid, following], rel=1e-5)
        assert got.action_mask.tolist() == mask


def test_n_steps_without_chunks() -> None:
    buffer = make(n_steps=3)
    buffer.attach(dataset(episodes(6)))
    got = row(buffer.sample(100), 1)
    assert got.actions.shape == got.action_mask.shape == (2,)
    assert float(got.rewards) == pytest.approx(2 + GAMMA * 3 + GAMMA**2 * 4)
    assert float(got.next_observations) == 4
    torch.testing.assert_close(got.next_actions, torch.tensor([0.004, -0.004]))


def test_episodes_count_alike_whatever_their_length() -> None:
    buffer = make()
    buffer.attach(dataset(episodes(2, 90, 3)))
    start = torch.cat([buffer.sample(500).observations[:, 0] for _ in range(10)])
    shares = [float(part.float().mean()) for part in (start < 2, (start >= 2) & (start < 92), start >= 92)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)
    counts = torch.bincount(start[start >= 92].long() - 92)
    assert float(counts[0] / counts.sum()) == pytest.approx(0.5, abs=0.04)


def test_without_replacement_only_if_there_are_more_episodes_than_rows() -> None:
    buffer = make()
    buffer.attach(dataset(episodes(*[4] * 30)))
    for _ in range(5):
        assert len(set((buffer.sample(29).observations[:, 0] // 4).tolist())) == 29
    assert len(set((buffer.sample(30).observations[:, 0] // 4).tolist())) < 30


@pytest.mark.parametrize("count", [5, 13])  # A permutation, and draws until there are enough different numbers.
def test_every_ordered_choice_of_episodes_has_the_same_probability(count: int) -> None:
    generator, draws, size = torch.Generator().manual_seed(0), 20_000, 3
    drawn = torch.stack([choose_episodes(count, size, generator) for _ in range(draws)])
    assert all(len(set(row)) == size for row in drawn.tolist())
    orders = torch.bincount((drawn * torch.tensor([count**2, count, 1])).sum(-1), minlength=count**3)
    choices = count * (count - 1) * (count - 2)
    expected = draws / choices
    chi_squared = float(((orders[orders > 0] - expected) ** 2 / expected).sum() + expected * (orders == 0).sum())
    chi_squared -= expected * (count**3 - choices)  # Choices that hold a number twice cannot occur.
    assert abs(chi_squared - (choices - 1)) < 4 * (2 * (choices - 1)) ** 0.5


def test_a_batch_costs_the_same_for_any_number_of_episodes() -> None:
    assert len(choose_episodes(10**15, 256, torch.Generator().manual_seed(0)).unique()) == 256

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            made.append((str(func), tuple(result.shape) if isinstance(result, torch.Tensor) else None))
            return result

    records = []
    for number in (100, 300):
        buffer, made = make(horizon=2), []
        buffer.attach(dataset(episodes(*[3] * number)))
        buffer.sample(8)
        with Recorder():
            buffer.sample(8)
        records.append(made)
    assert len(records[0]) > 20
    assert records[0] == records[1]


def test_episodes_of_one_step_are_left_out() -> None:
    buffer = make()
    buffer.attach(dataset(episodes(1, 3, 1)))
    assert set(buffer.sample(100).observations[:, 0].tolist()) == {1, 2}
    with pytest.raises(ValueError, match="the dataset's 3 transitions contain no episode of at least two steps"):
        make().attach(dataset(episodes(1, 1, 1)))
    with pytest.raises(ValueError, match="fewer than one window of 5 steps"):
        make(horizon=5).attach(dataset(episodes(3)))


def add(buffer: TransitionBuffer, values: list[float], done: list[bool], truncated: bool = False) -> None:
    obs = np.array(values, np.float32)[:, None]
    infos = [{"TimeLimit.truncated": truncated} for _ in values]
    buffer.add(obs, obs + 0.5, np.repeat(obs / 1000, 2, -1), np.array(values), np.array(done), infos)


def test_online_episodes_of_several_environments_stay_apart() -> None:
    buffer = make(n_envs=2, horizon=2)
    for t in range(8):
        add(buffer, [t, 100 + t], [t == 2, t == 5])
    batch = buffer.sample(400)
    # In each stream one episode has ended, and the running one counts up to the newest step.
    assert set(batch.observations[:, 0].int().tolist()) == {0, 1, 3, 4, 5, 6, 100, 101, 102, 103, 104, 106}
    ended, running = row(batch, 1), row(batch, 6)
    assert float(ended.rewards) == pytest.approx(1 + GAMMA * 2)
    assert (float(ended.next_observations), float(ended.discounts)) == (2, 0)
    assert float(running.rewards) == pytest.approx(6 + GAMMA * 7)
    assert (float(running.next_observations), float(running.valid)) == (7, 1)
    assert float(running.discounts) == pytest.approx(GAMMA**2)
    assert float(row(batch, 103).next_observations) == 105


def test_no_window_crosses_a_reset_in_the_middle_of_an_episode() -> None:
    for scheme, starts in (("episodes", {0, 1, 3, 4}), ("uniform", {0, 1, 2, 3, 4})):
        buffer = make(windows=scheme, horizon=2)
        buffer.end_episodes()  # There is no episode to end before the first step.
        for t in range(6):
            add(buffer, [t], [False])
            if t == 2:
                buffer.end_episodes()
                buffer.end_episodes()
        batch = buffer.sample(200)
        first = batch.observations[:, 0]
        assert set(first.int().tolist()) == starts
        assert torch.equal(batch.valid == 0, first == 2)
        torch.testing.assert_close(batch.discounts, torch.full((200,), GAMMA**2))


def test_an_environment_that_has_just_begun_gives_no_window() -> None:
    buffer = make()
    assert buffer.num_windows() == 0
    add(buffer, [1.0], [False])
    assert buffer.num_windows() == 0
    with pytest.raises(ValueError, match="has 1 transitions and no episode of two steps"):
        buffer.sample(4)
    add(buffer, [2.0], [True])
    assert buffer.num_windows() == 1
    assert set(buffer.sample(4).observations[:, 0].tolist()) == {1}


def test_an_episode_whose_beginning_was_overwritten_begins_at_the_oldest_step() -> None:
    buffer = make(buffer_size=6)
    for t in range(9):
        add(buffer, [t], [t in (1, 5)])
    batch = buffer.sample(200)
    # Steps 3 to 8 are stored; the first episode was overwritten, and so was step 2 of the second one.
    assert set(batch.observations[:, 0].int().tolist()) == {3, 4, 6, 7}
    torch.testing.assert_close(batch.next_observations, batch.observations + 1)
    torch.testing.assert_close(batch.actions[:, :1], batch.observations / 1000)


@settings(max_examples=60, deadline=None)
@given(
    done=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=14),
    capacity=st.integers(1, 16),
    block=st.integers(1, 5),
)
def test_the_table_of_episodes_equals_a_naive_one(done: list[list[bool]], capacity: int, block: int) -> None:
    found, flags = Episodes(capacity, 3), torch.tensor(done, dtype=torch.float32)
    for part in flags.split(block):
        found.extend(part)
    oldest, expected = max(len(done) - capacity, 0), set()
    for stream in range(3):
        first = 0
        for step in range(len(done)):
            if done[step][stream] or step == len(done) - 1:
                begin = max(first, oldest)
                expected |= {(stream, begin - oldest, step - oldest)} if step > begin else set()
                first = step + 1
    table = [tuple(column) for column in found.table().T.tolist()]
    assert len(table) == len(set(table))
    assert set(table) == expected
    assert found.starts() == sum(last - first for _, first, last in expected)


def test_offline_and_online_episodes_are_drawn_as_one_and_shuffled() -> None:
    buffer = make()
    buffer.attach(dataset(episodes(10, 50, 2)))
    for t in range(30):
        add(buffer, [900.0 + t], [t == 3])
    online = torch.stack([buffer.sample(100).observations[:, 0] >= 900 for _ in range(60)]).float()
    assert float(online.mean()) == pytest.approx(2 / 5, abs=0.03)
    # RQL treats the two halves of a batch differently, so both must contain offline and online data.
    assert float(online[:, :50].mean()) == pytest.approx(float(online[:, 50:].mean()), abs=0.05)
    batch = buffer.sample(100)
    torch.testing.assert_close(batch.next_observations, batch.observations + 1)


def test_a_share_of_offline_windows_is_shuffled() -> None:
    buffer = make(offline_share=0.5)
    buffer.attach(dataset(episodes(10, 50, 2)))
    for t in range(30):
        add(buffer, [900.0 + t], [t == 3])
    online = torch.stack([buffer.sample(100).observations[:, 0] >= 900 for _ in range(60)]).float()
    assert (online.sum(1) == 50).all()
    assert float(online[:, :50].mean()) == pytest.approx(0.5, abs=0.05)


def test_vec_normalize_is_applied_when_sampling() -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    env.obs_rms.mean, env.obs_rms.var = np.full(3, 10.0), np.full(3, 4.0)
    env.ret_rms.var = np.array(25.0)
    buffer = make(observation_space=env.observation_space, horizon=2, gamma=1.0)
    for value, reward in ((12.0, 5.0), (14.0, 10.0), (16.0, 0.0)):
        flat = np.full((1, 3), value)
        buffer.add(flat, flat, np.zeros((1, 2)), np.array([reward]), np.zeros(1, bool), [{}])
    got = row(buffer.sample(20, env=env), 1)
    assert float(got.rewards) == pytest.approx(3.0, abs=1e-4)
    torch.testing.assert_close(got.next_observations, torch.full((3,), 3.0), atol=1e-4, rtol=0)


def test_pickle_keeps_the_online_episodes() -> None:
    buffer = make(n_envs=2)
    for t in range(20):
        add(buffer, [t, 100 + t], [t % 7 == 6, t % 5 == 4])
    copy = pickle.loads(pickle.dumps(buffer))
    assert torch.equal(copy.sample(30).observations, buffer.sample(30).observations)
