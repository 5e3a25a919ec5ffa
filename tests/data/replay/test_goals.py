"""Hindsight goals, on two trajectories whose observations are row numbers."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict

from flowpolicies.core import Batch
from flowpolicies.data import HindsightGoals, TransitionDataset, open_memmap, write_memmap
from flowpolicies.data.replay.buffer import TransitionBuffer

LENGTHS = (3, 5)
ENDS = torch.tensor([2, 7])
GAMMA = 0.5
BATCH = 4000

CURRENT = HindsightGoals(p_current=1, p_future=0, p_random=0)
NEXT = HindsightGoals(p_current=0, p_future=1, p_random=0, discount=0.0)
RANDOM = HindsightGoals(p_current=0, p_future=0, p_random=1)


def dataset(*, achieved: bool = False) -> TransitionDataset:
    """Trajectories of the rows 0 to 2 and 3 to 7. Row i has the state (i, 10 i), with `achieved` the goal 100 i."""
    rows = np.arange(8, dtype=np.float32)
    states = np.stack([rows, 10 * rows], -1)
    observations = {"observation": states, "desired_goal": np.zeros_like(states)}
    following = {"observation": states + np.array([1, 10]), "desired_goal": np.zeros_like(states)}
    if achieved:
        for part, shift in ((observations, 0), (following, 100)):
            part |= {"achieved_goal": 100 * rows[:, None] + shift, "desired_goal": np.zeros((8, 1))}
    return TransitionDataset.from_arrays(
        observations,
        rows[:, None] / 10,
        np.full(8, 7.0),
        following,
        masks=np.ones(8),
        terminals=np.isin(rows, [2, 7]),
        provenance={"goals": "hindsight"},
    )


def buffer(data: TransitionDataset, goals: Any = "dataset", **options: Any) -> TransitionBuffer:
    made = TransitionBuffer(
        10, data.observation_space, data.action_space, "cpu", gamma=GAMMA, goals=goals, seed=0, **options
    )
    made.attach(data)
    return made


def rows_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the states and rows of their goals; the parts of an observation are sorted by name."""
    goals, states = batch.observations[:, :2], batch.observations[:, 2:]
    for part in (goals, states):
        torch.testing.assert_close(part[:, 1], 10 * part[:, 0])
    return states[:, 0].long(), goals[:, 0].long()


def test_the_shares_of_goals() -> None:
    mix = HindsightGoals(p_current=0.2, p_future=0.5, p_random=0.3, discount=0.5)
    goals = mix.draw(torch.full((40_000,), 3), ENDS, GAMMA, torch.Generator().manual_seed(0))
    shares = torch.bincount(goals, minlength=8) / len(goals)
    # From row 3: one step later with probability 1/2, two with 1/4, three with 1/8, four or more (row 7) with 1/8.
    expected = [0.3 / 8] * 3 + [0.2 + 0.3 / 8] + [0.5 * share + 0.3 / 8 for share in (1 / 2, 1 / 4, 1 / 8, 1 / 8)]
    torch.testing.assert_close(shares, torch.tensor(expected), atol=0.01, rtol=0)


def test_future_goals_that_are_uniform() -> None:
    mix = HindsightGoals(p_current=0, p_future=1, p_random=0, geometric=False)
    goals = mix.draw(torch.full((40_000,), 3), ENDS, GAMMA, torch.Generator().manual_seed(0))
    shares = torch.bincount(goals, minlength=8) / len(goals)
    # A uniform point between rows 4 and 7, rounded.
    torch.testing.assert_close(shares, torch.tensor([0, 0, 0, 0, 1 / 6, 1 / 3, 1 / 3, 1 / 6]), atol=0.01, rtol=0)


def test_a_future_goal_stays_in_its_trajectory() -> None:
    rows = torch.arange(8)
    goals = HindsightGoals(p_current=0, p_future=1, p_random=0, discount=0.99).draw(
        rows.repeat(500), ENDS, GAMMA, torch.Generator().manual_seed(0)
    )
    rows, ends = rows.repeat(500), torch.where(rows < 3, 2, 7).repeat(500)
    assert (goals <= ends).all()
    assert (goals > rows)[rows != ends].all()
    assert (goals == rows)[rows == ends].all()


def test_the_own_state_as_goal_is_reached() -> None:
    batch = buffer(dataset(), CURRENT).sample(BATCH)
    states, goals = rows_of(batch)
    assert set(states.tolist()) == set(range(8))
    assert torch.equal(states, goals)
    assert (batch.rewards == 0).all()
    assert (batch.discounts == 0).all()


def test_the_next_state_as_goal_is_not_reached_yet() -> None:
    batch = buffer(dataset(), NEXT).sample(BATCH)
    states, goals = rows_of(batch)
    at_end = torch.isin(states, ENDS)
    assert torch.equal(goals, torch.where(at_end, states, states + 1))
    assert torch.equal(batch.rewards, torch.where(at_end, 0.0, -1.0))
    assert torch.equal(batch.discounts, torch.where(at_end, 0.0, GAMMA))
    torch.testing.assert_close(batch.next_observations[:, :2], batch.observations[:, :2])  # The same goal.
    torch.testing.assert_close(batch.next_observations[:, 2], batch.observations[:, 2] + 1)


def test_random_goals_come_from_everywhere() -> None:
    states, goals = rows_of(buffer(dataset(), RANDOM).sample(BATCH))
    pairs = torch.bincount(8 * states + goals, minlength=64)
    assert pairs.min() > 20


@pytest.mark.parametrize("goals", ["dataset", RANDOM], ids=["default", "random"])
def test_chunks_of_three_steps(goals: Any) -> None:
    """Compared with QAM's recursion, with the rewards -1 + [row is the goal] and the masks 1 - [row is the goal]."""
    batch = buffer(dataset(), goals, horizon=3).sample(500)
    states, goal_rows = rows_of(batch)
    for i, (start, goal) in enumerate(zip(states.tolist(), goal_rows.tolist(), strict=True)):
        total, mask, valid, last = 0.0, 1.0, 1.0, start
        for j in range(3):
            if valid:
                last = start + j
                total += GAMMA**j * ((last == goal) - 1)
                mask = min(mask, 1.0 - (last == goal))
            if j < 2 and start + j in (2, 7):
                valid = 0.0
        assert batch.rewards[i] == pytest.approx(total)
        assert batch.discounts[i] == pytest.approx(GAMMA**3 * mask)
        assert batch.valid[i] == valid
        assert batch.next_observations[i, 2] == last + 1


@pytest.mark.parametrize("goals", ["dataset", RANDOM], ids=["default", "random"])
def test_returns_of_three_steps_stop_at_the_goal_and_at_the_end(goals: Any) -> None:
    batch = buffer(dataset(), goals, n_steps=3).sample(500)
    states, goal_rows = rows_of(batch)
    assert set(states.tolist()) == set(range(8))
    assert batch.valid.all()
    for i, (start, goal) in enumerate(zip(states.tolist(), goal_rows.tolist(), strict=True)):
        steps = list(range(start, min(start + 2, 2 if start < 3 else 7) + 1))
        steps = steps[: steps.index(goal) + 1] if goal in steps else steps
        assert batch.rewards[i] == pytest.approx(sum(GAMMA**j * ((row == goal) - 1) for j, row in enumerate(steps)))
        assert batch.discounts[i] == pytest.approx(0 if goal in steps else GAMMA ** len(steps))
        assert batch.next_observations[i, 2] == steps[-1] + 1


def test_windows_inside_episodes() -> None:
    batch = buffer(dataset(), "dataset", horizon=2, windows="episodes").sample(500)
    states, goals = rows_of(batch)
    lasts = torch.where(states < 3, 2, 7)
    second = torch.minimum(states + 1, lasts)
    rewards = ((states == goals).float() - 1) + GAMMA * ((second == goals).float() - 1)
    torch.testing.assert_close(batch.rewards, rewards)
    reached = (states == goals) | (second == goals)
    torch.testing.assert_close(batch.discounts, GAMMA**2 * (~reached).float())


def test_goals_are_what_states_achieve() -> None:
    data = dataset(achieved=True)
    batch = buffer(data, NEXT).sample(500)
    achieved, desired, states = batch.observations.split([1, 1, 2], -1)
    torch.testing.assert_close(achieved[:, 0], 100 * states[:, 0])
    at_end = torch.isin(states[:, 0].long(), ENDS)
    torch.testing.assert_close(desired[:, 0], 100 * torch.where(at_end, states[:, 0], states[:, 0] + 1))
    torch.testing.assert_close(batch.next_observations[:, 0], 100 * (states[:, 0] + 1))


@pytest.mark.parametrize("achieved", [False, True])
@pytest.mark.parametrize("options", [{}, {"horizon": 2}], ids=["steps", "chunks"])
def test_data_in_files_gives_the_same_batches(tmp_path: Path, achieved: bool, options: dict[str, int]) -> None:
    data = dataset(achieved=achieved)
    mapped = open_memmap(write_memmap(tmp_path / "mapped", data))
    for first, second in zip(buffer(data, **options).sample(100), buffer(mapped, **options).sample(100), strict=True):
        assert torch.equal(first, second)


def test_the_dataset_decides_unless_the_user_does() -> None:
    kept = buffer(dataset(), None).sample(50)
    assert (kept.observations[:, :2] == 0).all()
    assert (kept.rewards == 7).all()
    plain = dataset()
    plain.provenance.pop("goals")
    assert (buffer(plain).sample(50).rewards == 7).all()
    assert (buffer(plain, CURRENT).sample(50).rewards == 0).all()


def test_online_transitions_keep_their_goals() -> None:
    data = dataset()
    made = buffer(data, CURRENT, offline_share=0.5)
    observation = {"observation": np.array([[20.0, 200.0]]), "desired_goal": np.array([[30.0, 300.0]])}
    for _ in range(3):
        made.add(observation, observation, np.zeros((1, 1)), np.array([-1.0]), np.array([False]), [{}])
    states, goals = rows_of(batch := made.sample(40))
    assert goals[states == 20].tolist() == [30] * 20
    assert (batch.rewards[states == 20] == -1).all()
    assert (goals == states)[states != 20].all()
    again = pickle.loads(pickle.dumps(made))
    again.attach(data)
    for first, second in zip(made.sample(20), again.sample(20), strict=True):
        assert torch.equal(first, second)


def test_mistakes_are_explained() -> None:
    with pytest.raises(ValueError, match=r"must be probabilities that sum to 1, got \(0.2, 0.5, 0.5\)"):
        HindsightGoals(p_random=0.5)
    with pytest.raises(ValueError, match=r"must be at least 0 and less than 1, or None, got 1.0"):
        HindsightGoals(discount=1.0)
    data = dataset()
    with pytest.raises(ValueError, match=r"cannot be geometrically distributed with gamma=1; set HindsightGoals\(disc"):
        TransitionBuffer(1, data.observation_space, data.action_space, "cpu", gamma=1).attach(data)
    flat = Box(-1, 1, (2,))
    plain = TransitionDataset.from_arrays(
        np.zeros((2, 2)), np.zeros((2, 1)), [0, 0], np.zeros((2, 2)), terminations=[0, 1]
    )
    with pytest.raises(ValueError, match=r"with the keys 'desired_goal' and 'observation' .* Pass goals=None"):
        TransitionBuffer(1, flat, plain.action_space, "cpu", goals=CURRENT).attach(plain)
    narrow = Dict({"observation": flat, "desired_goal": Box(-1, 1, (1,))})
    with pytest.raises(ValueError, match=r"of shape \(2,\), but 'desired_goal' has the shape \(1,\)\. Add 'achi"):
        TransitionBuffer(1, narrow, data.action_space, "cpu").attach(data)
