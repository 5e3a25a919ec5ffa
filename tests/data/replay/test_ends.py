"""N-step returns near ends of episodes: compared with Stable-Baselines3's NStepReplayBuffer, by hand, by learning."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer

from flowpolicies import IQL
from flowpolicies.core import Batch
from flowpolicies.data import TransitionDataset, open_memmap, write_memmap
from flowpolicies.data.replay.buffer import TransitionBuffer

GAMMA = 0.9
OBS, ACT = spaces.Box(-np.inf, np.inf, (1,), np.float32), spaces.Box(-1, 1, (1,), np.float32)
# Episodes of 4 (terminated), 1 (truncated), 2 (terminated), 6 (truncated) and 3 rows (the data end).
TERMINALS = [0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1]
MASKS = [1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]


def dataset(terminals: list[int] = TERMINALS, masks: list[int] = MASKS, *, compact: bool = False) -> TransitionDataset:
    """Row i: observation i (with the next observation i + 1), action i / 100, reward 2^i / 100."""
    i = np.arange(len(terminals), dtype=np.float32)
    made = TransitionDataset.from_arrays(
        i[:, None],
        i[:, None] / 100,
        2.0**i / 100,
        i[:, None] + 1,
        masks=np.array(masks, np.float32),
        terminals=np.array(terminals, np.float32),
        observation_space=OBS,
        action_space=ACT,
    )
    return made.compact() if compact else made


def make(n_steps: int, **options: Any) -> TransitionBuffer:
    return TransitionBuffer(100, OBS, ACT, "cpu", **{"n_steps": n_steps, "gamma": GAMMA, "seed": 0, **options})


def found(batch: Batch) -> dict[int, tuple[float, float, float]]:
    """Reward, discount and next observation by the first observation of the window; all windows are valid."""
    assert batch.valid.all()
    columns = (batch.observations[:, 0].int(), batch.rewards, batch.discounts, batch.next_observations[:, 0])
    return {int(o): (float(r), float(d), float(n)) for o, r, d, n in zip(*columns, strict=True)}


def stock(n_steps: int) -> dict[int, tuple[float, float, float]]:
    """The same from Stable-Baselines3's buffer."""
    data = dataset()
    buffer = NStepReplayBuffer(len(data), OBS, ACT, "cpu", n_steps=n_steps, gamma=GAMMA)
    for i in range(len(data)):
        step = (data.observations[i], data.next_observations[i], data.actions[i], data.rewards[i], data.terminals[i])
        buffer.add(*step, [{"TimeLimit.truncated": bool(TERMINALS[i] and MASKS[i])}])
    samples = buffer._get_samples(np.arange(len(data)))
    discounts = samples.discounts * (1 - samples.dones)
    rows = torch.cat([samples.rewards, discounts, samples.next_observations], 1).tolist()
    return {i: tuple(row) for i, row in enumerate(rows)}


@pytest.mark.parametrize("n_steps", [1, 2, 3, 5, 30])
@pytest.mark.parametrize("storage", ["arrays", "uncached", "files", "compact"])
def test_every_window_is_stable_baselines3_s(storage: str, n_steps: int, tmp_path: Path) -> None:
    data = dataset()
    if storage == "compact":
        # Compact data store one state between two rows, so next observations inside an episode are i + 1.
        data = dataset(compact=True)
    if storage == "files":
        data = open_memmap(write_memmap(tmp_path / "mapped", data))
    buffer = make(n_steps)
    buffer.attach(data)
    if storage == "uncached":
        assert buffer.offline is not None
        buffer.offline.cached = None
    got, expected = found(buffer.sample(1000)), stock(n_steps)
    assert got.keys() == expected.keys()
    for row, numbers in expected.items():
        assert got[row] == pytest.approx(numbers, rel=1e-5), row


def test_targets_written_out() -> None:
    buffer = make(3)
    buffer.attach(dataset())
    got = found(buffer.sample(1000))
    assert got[2] == pytest.approx((0.04 + GAMMA * 0.08, 0, 4))  # Terminated after the second step.
    assert got[4] == pytest.approx((0.16, GAMMA, 5))  # An episode of one step, truncated.
    assert got[5] == pytest.approx((0.32 + GAMMA * 0.64, 0, 7))  # Shorter than n, terminated.
    assert got[11] == pytest.approx((20.48 + GAMMA * 40.96, GAMMA**2, 13))  # Truncated after the second step.
    assert got[14][1:] == pytest.approx((GAMMA**2, 16))  # The end of the data.
    assert got[0] == pytest.approx((0.01 + GAMMA * 0.02 + GAMMA**2 * 0.04, GAMMA**3, 3))


def test_returns_stop_where_bootstrapping_stops_inside_a_trajectory() -> None:
    """As with single steps, whose targets have no value after such a row."""
    buffer = make(3)
    buffer.attach(dataset([0, 0, 0, 1], [1, 0, 1, 1]))
    got = found(buffer.sample(200))
    assert got[0] == pytest.approx((0.01 + GAMMA * 0.02, 0, 2))
    assert got[1] == pytest.approx((0.02, 0, 2))


def test_next_actions_follow_the_last_step_of_the_window() -> None:
    buffer = make(3)
    buffer.attach(dataset())
    for cached in (True, False):
        assert buffer.offline is not None
        buffer.offline.cached = buffer.offline.cached if cached else None
        batch = buffer.sample(500)
        following = {round(float(o)): float(a) for o, a in zip(batch.observations, batch.next_actions, strict=True)}
        assert following[0] == pytest.approx(0.03)
        assert following[11] == pytest.approx(0.13)


def by_hand(stream: list[tuple[float, bool, bool]], start: int, n: int) -> tuple[float, float, float]:
    """Reward, discount and next observation of the window that begins at step `start` of (value, done, truncated)."""
    total = 0.0
    for j in range(n):
        value, done, truncated = stream[start + j]
        total += GAMMA**j * value
        if done or start + j == len(stream) - 1 or j == n - 1:
            return total, GAMMA ** (j + 1) * (not done or truncated), value + 0.5
    raise AssertionError


@pytest.mark.parametrize("n_steps", [1, 3, 5])
@pytest.mark.parametrize("steps", [9, 14], ids=["half full", "overwritten"])
def test_online_windows_of_two_environments(n_steps: int, steps: int) -> None:
    buffer = TransitionBuffer(20, OBS, ACT, "cpu", n_envs=2, n_steps=n_steps, gamma=GAMMA, seed=0)
    streams: list[list[tuple[float, bool, bool]]] = [[], []]
    for t in range(steps):
        values, dones, cuts = [t, 100 + t], [t in (3, 4, 12), t in (1, 7, 8)], [t == 4, t == 7]
        obs, infos = np.array(values, np.float32)[:, None], [{"TimeLimit.truncated": cut} for cut in cuts]
        buffer.add(obs, obs + 0.5, obs / 1000, np.array(values), np.array(dones), infos)
        for stream, *step in zip(streams, values, dones, cuts, strict=True):
            stream.append(tuple(step))
    got = found(buffer.sample(1000))
    streams = [stream[-10:] for stream in streams]
    assert set(got) == {int(step[0]) for stream in streams for step in stream}
    for stream in streams:
        for start, step in enumerate(stream):
            assert got[int(step[0])] == pytest.approx(by_hand(stream, start, n_steps)), step


def test_an_interrupted_episode_ends_at_its_newest_step() -> None:
    buffer = make(3)
    for t in range(4):
        obs = np.array([[t]], np.float32)
        buffer.add(obs, obs + 0.5, obs / 100, np.array([1.0]), np.array([False]), [{}])
        if t == 1:
            buffer.end_episodes()
    assert buffer.num_windows() == 4
    got = found(buffer.sample(200))
    assert got[0] == pytest.approx((1 + GAMMA, GAMMA**2, 1.5))
    assert got[3] == pytest.approx((1, GAMMA, 3.5))


def test_chunks_keep_the_rule_of_the_papers() -> None:
    buffer = TransitionBuffer(10, OBS, ACT, "cpu", horizon=3, gamma=GAMMA, seed=0)
    buffer.attach(dataset())
    batch = buffer.sample(500)
    start = batch.observations[:, 0]
    assert set(start.int().tolist()) == set(range(14))
    inside = torch.tensor([int(i) in (0, 1, 7, 8, 9, 10, 13) for i in start])
    assert torch.equal(batch.valid > 0, inside)


@pytest.mark.parametrize("collected", [False, True], ids=["dataset", "collected"])
def test_the_mask_of_a_chunk_ends_with_its_episode(collected: bool) -> None:
    buffer, data = TransitionBuffer(20, OBS, ACT, "cpu", horizon=3, gamma=GAMMA, seed=0), dataset()
    if collected:
        for i in range(len(data)):
            row = (data.observations[i : i + 1], data.next_observations[i : i + 1], data.actions[i : i + 1])
            truncated = {"TimeLimit.truncated": bool(TERMINALS[i] and MASKS[i])}
            buffer.add(*row, data.rewards[i : i + 1], data.terminals[i : i + 1], [truncated])
    else:
        buffer.attach(data)
    batch = buffer.sample(500)
    steps = {int(o): mask for o, mask in zip(batch.observations[:, 0], batch.action_mask.tolist(), strict=True)}
    length = [3, 3, 2, 1, 1, 2, 1, 3, 3, 3, 3, 2, 1, 3]
    assert steps == {i: [1.0] * length[i] + [0.0] * (3 - length[i]) for i in range(14)}


def chain(kind: str) -> TransitionDataset:
    """Ten states in a row with reward 1 in the last one, where the episode terminates: Q(s) = 0.9^(9 - s).

    "terminal": whole episodes. "short": also episodes from the last three states. "truncated": episodes of at most four
    steps from each state.
    """
    starts = {"terminal": [0], "short": [0, 7, 8, 9], "truncated": list(range(10))}[kind]
    episodes = [list(range(s, min(s + (4 if kind == "truncated" else 10), 10))) for s in starts]
    state = np.array([s for episode in episodes for s in episode])
    last = np.array([s == episode[-1] for episode in episodes for s in episode])
    eye = np.eye(11, dtype=np.float32)[:, :10]
    return TransitionDataset.from_arrays(
        eye[state],
        np.random.default_rng(0).uniform(-1, 1, (len(state), 1)),
        state == 9,
        eye[state + 1],
        masks=state != 9,
        terminals=last,
    )


@pytest.mark.parametrize("n_steps", [1, 3, 5])
@pytest.mark.parametrize("kind", ["terminal", "short", "truncated"])
def test_the_chain_is_solved(kind: str, n_steps: int) -> None:
    data = chain(kind)
    buffer = TransitionBuffer(
        10, data.observation_space, data.action_space, "cpu", n_steps=n_steps, gamma=GAMMA, seed=0
    )
    buffer.attach(data)
    q = torch.zeros(10)
    for _ in range(15):
        batch = buffer.sample(200)
        assert batch.valid.all()
        target = batch.rewards + batch.discounts * (batch.next_observations @ q)
        q[batch.observations.argmax(-1)] = target
    torch.testing.assert_close(q, GAMMA ** (9 - torch.arange(10.0)), atol=0.02, rtol=0)


def test_an_algorithm_solves_the_truncated_chain() -> None:
    data = chain("truncated")
    options = {"actor_hidden_dims": (8,), "value_hidden_dims": (64, 64), "batch_size": 64, "device": "cpu", "seed": 0}
    model = IQL(dataset=data, n_steps=3, gamma=GAMMA, tau=0.1, learning_rate=1e-3, expectile=0.5, **options)
    model.learn_offline(800)
    rows = torch.from_numpy(data.observations)
    q = model.policy.networks["critic"](rows, torch.from_numpy(data.actions)).mean(0).squeeze(-1)
    torch.testing.assert_close(q.detach(), GAMMA ** (9 - rows.argmax(-1)), atol=0.02, rtol=0)
