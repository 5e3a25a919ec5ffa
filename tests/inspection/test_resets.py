"""Resets inside trajectories: ends that nobody marked, in data whose next observations are the next rows."""

from __future__ import annotations

from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from flowpolicies.data import TransitionDataset
from flowpolicies.inspection import inspect_dataset

FAMILIES = {
    "Pendulum-v1": (40, 100),
    "MountainCarContinuous-v0": (40, 100),
    "HalfCheetah-v5": (20, 200),
    "Reacher-v5": (60, 50),
    "Swimmer-v5": (12, 200),
    "Hopper-v5": (60, 200),
    "Walker2d-v5": (60, 200),
}
FIXED = list(FAMILIES)[:5]


@cache
def roll_out(name: str, smooth: bool) -> dict[str, Any]:
    """Episodes of a random policy, or of one whose actions change slowly."""
    if "v5" in name:
        pytest.importorskip("mujoco")
    episodes, steps = FAMILIES[name]
    env, rows, action = gym.make(name, max_episode_steps=steps), [], 0.0
    env.action_space.seed(0)
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        done = False
        while not done:
            draw = env.action_space.sample()
            action = np.clip(0.9 * action + 0.3 * draw, -1, 1).astype(np.float32) if smooth else draw
            following, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            rows.append((observation, action, reward, following, terminated, done))
            observation = following
    names = ("observations", "actions", "rewards", "next_observations", "terminations", "ends")
    return {**dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True)), "action_space": env.action_space}


def problems(columns: dict[str, Any], *, lost: str) -> tuple[list[Any], Any]:
    """Faults and warnings about trajectories, and the ends that are lost: none, all, or every second one."""
    kept = dict(columns)
    ends = np.flatnonzero(kept.pop("ends"))
    marked = {"none": ends, "all": ends[-1:], "half": np.union1d(ends[1::2], ends[-1:])}[lost]
    if lost != "none":
        shifted = np.concatenate([kept["observations"][1:], kept["next_observations"][-1:]])
        shifted[marked] = kept["next_observations"][marked]
        kept["next_observations"] = shifted
    flags = np.zeros(len(kept["actions"]))
    flags[marked] = 1
    terminations = kept.pop("terminations") * flags
    dataset = TransitionDataset.from_arrays(**kept, masks=1 - terminations, terminals=flags)
    found = [f for f in inspect_dataset(dataset).findings if f.severity != "info"]
    return [f for f in found if f.check in ("trajectories", "alignment")], np.setdiff1d(ends, marked)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_marked_ends_raise_no_alarm(name: str, smooth: bool) -> None:
    assert problems(roll_out(name, smooth), lost="none")[0] == []


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("lost", ["all", "half"])
@pytest.mark.parametrize("name", FIXED)
def test_lost_time_limits_are_a_fault(name: str, lost: str, smooth: bool) -> None:
    (finding,), ends = problems(roll_out(name, smooth), lost=lost)
    assert (finding.severity, finding.check) == ("fault", "trajectories")
    assert f"one every {FAMILIES[name][1]} steps" in finding.message
    assert 0.8 * len(ends) <= finding.count <= len(ends)
    assert finding.row in ends


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("lost", ["all", "half"])
@pytest.mark.parametrize("name", ["Hopper-v5", "Walker2d-v5"])
def test_lost_falls_are_a_warning(name: str, lost: str, smooth: bool) -> None:
    (finding,), ends = problems(roll_out(name, smooth), lost=lost)
    assert (finding.severity, finding.check) == ("warning", "trajectories")
    assert "lead back to where trajectories start" in finding.message
    assert 0.8 * len(ends) <= finding.count <= len(ends)


def test_a_clock_that_restarts_is_no_reset() -> None:
    """One component of an observation may be periodic."""
    columns = dict(roll_out("Pendulum-v1", False))
    time = np.arange(len(columns["actions"]))
    for key, shift in (("observations", 0), ("next_observations", 1)):
        clock = ((time + shift) % 25)[:, None] / 25
        columns[key] = np.concatenate([columns[key], clock], axis=1)
    assert problems(columns, lost="none")[0] == []
