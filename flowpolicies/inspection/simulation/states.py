"""Re-simulation by an environment whose observations are its state, as those of many of Gymnasium's are.

Whether an observation is the state is not looked up but tried: the environment is put into the state that one of its
own observations suggests, makes a step, and must arrive where it arrived before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.inspection.findings import Finding, Rows, not_judged
from flowpolicies.inspection.simulation.resimulation import Resimulate, Resimulated
from flowpolicies.tree import Array

TRIED_STEPS = 20
"""Number of steps of each of the episodes in which it is tried whether observations are states."""

TRIED_EPISODES = 3
"""Number of these episodes."""

LEAST_TRIED = 10
"""Smallest number of these steps that must be comparable."""

CLIPPED = 10.0
"""Bound at which Hopper, Walker2d and InvertedDoublePendulum clip velocities, so that these do not tell the state."""

AGREE = 0.9
"""Share of these steps that must be repeated."""

OWN_REWARDS = 0.2
"""Share of the rows whose reward must be the environment's, so that the others are wrong and not made on purpose."""

COMPARED = 100
"""Number of rows that are compared to find out whether the rewards are the environment's."""

Restore = Callable[[Any, Array], None]
"""Function that puts an environment into the state of an observation `[D]`."""


class StateSimulator(NamedTuple):
    """A simulator, and which parts of the data it cannot judge."""

    resimulate: Resimulate
    """Makes one step from the stored states."""
    notes: tuple[Finding, ...]
    """What is not judged, and why."""


def open_state_simulator(dataset: TransitionDataset, env: gymnasium.Env[Any, Any]) -> StateSimulator:
    """Opens the simulator of a dataset whose observations are states of an environment.

    Args:
        dataset: the dataset, whose spaces are those of the environment.
        env: the environment; its episode is lost.

    Raises:
        ValueError: if the observations are not the state, or not of this environment; the message says why.
    """
    if not isinstance(env.observation_space, Box) or env.observation_space.dtype == np.uint8:
        raise ValueError("only observations of one vector can be states of the environment")
    observations: Any = dataset.observations
    if not hasattr(observations, "shape") or observations.shape[1:] != env.observation_space.shape:
        raise ValueError("the observations have another shape than the environment's")
    if not isinstance(env.action_space, Box) or dataset.actions.shape[1:] != env.action_space.shape:
        raise ValueError("the actions have another shape than the environment's")
    episodes = _own_steps(env)
    restore = next((one for one in _CANDIDATES if _repeats(env, one, episodes)), None)
    if restore is None:
        raise ValueError("an observation does not determine the state of the environment")
    again = np.array([_step(env, restore, step.now, step.action)[1] for step in episodes])
    rewards = np.array([step.reward for step in episodes])
    known = ~_is_clipped(np.array([step.now for step in episodes]))
    repeats_rewards = bool(np.mean((np.abs(again - rewards) <= 1e-4 * np.maximum(1, np.abs(rewards)))[known]) >= AGREE)
    return _without_foreign_rewards(dataset, _simulator(dataset, env, restore), repeats_rewards=repeats_rewards)


def _simulator(dataset: TransitionDataset, env: gymnasium.Env[Any, Any], restore: Restore) -> Resimulate:
    observations: Any = dataset.observations
    stored: Any = dataset.next_observations

    def resimulate(rows: Rows, actions: Array) -> Resimulated:
        env.reset(seed=0)
        states = np.asarray(observations[rows], np.float64)
        outcomes = [_step(env, restore, state, action) for state, action in zip(states, actions, strict=True)]
        following, rewards, terminated = (np.array(column) for column in zip(*outcomes, strict=True))
        masks, unknown = 1.0 - terminated, _is_clipped(states)
        # What cannot be simulated is given back as it is stored, so that it is not compared.
        following[unknown] = stored[rows[unknown]]
        rewards[unknown], masks[unknown] = dataset.rewards[rows[unknown]], dataset.masks[rows[unknown]]
        return Resimulated(following, rewards, masks)

    return resimulate


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Without MuJoCo's lines about unstable states, which it would write to the terminal and to a file."""
    mujoco = sys.modules.get("mujoco")
    if mujoco is None:
        yield
        return
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


def _step(env: gymnasium.Env[Any, Any], restore: Restore, state: Array, action: Array) -> tuple[Array, float, bool]:
    """The step from a state; not a number if the simulator fails, as it may in impossible states."""
    try:
        with _without_warnings():
            restore(env.unwrapped, state)
            following, reward, terminated, _, _ = env.step(np.clip(action, *_bounds(env)))
    except Exception:  # A state that the data make up may break anything in a stranger's simulator.
        return np.full(state.shape, np.nan), np.nan, False
    return np.asarray(following, np.float64), float(reward), bool(terminated)


def _is_clipped(states: Array) -> Array:
    """Whether a velocity is at the bound at which some environments of Gymnasium clip it, `[n]`."""
    clipped: Array = (np.abs(states) == CLIPPED).any(axis=1)
    return clipped


def _bounds(env: gymnasium.Env[Any, Any]) -> tuple[Array, Array]:
    space: Any = env.action_space
    return space.low, space.high


class _Step(NamedTuple):
    """A step that the environment made."""

    now: Array
    """Observation before the step, `[D]`."""
    action: Array
    """Action that was taken, `[A]`."""
    then: Array
    """Observation after the step, `[D]`."""
    reward: float
    """Reward of the step."""


def _own_steps(env: gymnasium.Env[Any, Any]) -> list[_Step]:
    """Random steps."""
    env.action_space.seed(0)
    steps: list[_Step] = []
    for seed in range(TRIED_EPISODES):
        now, _ = env.reset(seed=seed)
        for _ in range(TRIED_STEPS):
            action = env.action_space.sample()
            then, reward, terminated, truncated, _ = env.step(action)
            steps.append(_Step(np.asarray(now, np.float64), action, np.asarray(then, np.float64), float(reward)))
            now = then
            if terminated or truncated:
                break
    return steps


def _repeats(env: gymnasium.Env[Any, Any], restore: Restore, steps: list[_Step]) -> bool:
    """Whether the environment repeats its own steps from their observations."""
    now, actions, then, _ = (np.array(column) for column in zip(*steps, strict=True))
    known = ~_is_clipped(now)
    if known.sum() < LEAST_TRIED:
        return False
    now, actions, then = now[known], actions[known], then[known]
    env.reset(seed=TRIED_EPISODES)
    again = np.array([_step(env, restore, *each)[0] for each in zip(now, actions, strict=True)])
    tolerance = 0.01 * (then - now).std(axis=0) + 1e-4 * now.std(axis=0) + 1e-5
    return float(np.mean((np.abs(again - then) <= tolerance).all(axis=1))) >= AGREE


def _without_foreign_rewards(
    dataset: TransitionDataset, resimulate: Resimulate, *, repeats_rewards: bool
) -> StateSimulator:
    """The simulator without the rewards or masks that the environment does not share with most of the rows."""
    rows = np.unique(np.linspace(0, len(dataset) - 1, COMPARED).round().astype(int))
    result = resimulate(rows, dataset.actions[rows])
    rewards, masks = np.asarray(dataset.rewards), np.asarray(dataset.masks)
    # Where the state is unknown, the simulator gives back what is stored, which says nothing.
    observations: Any = dataset.observations
    known = ~_is_clipped(np.asarray(observations[rows], np.float64))
    assert result.rewards is not None
    shares = []
    for lag in (0, 1, -1):
        stored = rewards[np.clip(rows + lag, 0, len(dataset) - 1)]
        equal = np.abs(stored - result.rewards) <= 1e-4 * np.maximum(1, np.abs(result.rewards))
        shares.append(np.mean(equal[known]) if known.any() else 0.0)
    own = repeats_rewards and max(shares) >= OWN_REWARDS
    own_masks = known.any() and np.mean((masks[rows] == result.masks)[known]) >= OWN_REWARDS
    notes = [
        not_judged("resimulation", f"most {name} are not those that the environment returns from these states")
        for name, is_own in (("rewards", own), ("masks", own_masks))
        if not is_own
    ]

    def judged(rows: Rows, actions: Array) -> Resimulated:
        found = resimulate(rows, actions)
        return found._replace(rewards=found.rewards if own else None, masks=found.masks if own_masks else None)

    return StateSimulator(judged, tuple(notes))


def _restore_mujoco(skipped: int) -> Restore:
    """For environments whose observation is MuJoCo's state without the first `skipped` positions, and what follows."""

    def restore(simulator: Any, state: Array) -> None:
        positions, velocities = simulator.model.nq, simulator.model.nv
        values = np.concatenate([np.zeros(skipped), state])
        if len(values) < positions + velocities:
            raise ValueError("the observation is shorter than the state")
        simulator.set_state(values[:positions], values[positions : positions + velocities])

    return restore


def _restore_state(simulator: Any, state: Array) -> None:
    """For environments of classic control that keep their observation as their state."""
    if np.shape(simulator.state) != state.shape:
        raise ValueError("the state has another shape")
    simulator.state = state.copy()


def _restore_angle(simulator: Any, state: Array) -> None:
    """For a pendulum, which observes the cosine and the sine of its angle."""
    angle = np.arctan2(state[1], state[0])
    simulator.state = np.array([angle, *state[2:]])


def _restore_reacher(simulator: Any, state: Array) -> None:
    """For two joints observed by cosines and sines, then a target, and the velocities of the joints."""
    angles = np.arctan2(state[2:4], state[:2])
    simulator.set_state(np.concatenate([angles, state[4:6]]), np.array([*state[6:8], 0.0, 0.0]))


def _restore_double_pendulum(simulator: Any, state: Array) -> None:
    """For a cart, observed by its position, and two joints, observed by sines and cosines, and their velocities."""
    simulator.set_state(np.array([state[0], *np.arctan2(state[1:3], state[3:5])]), state[5:8])


_CANDIDATES: tuple[Restore, ...] = (
    *(_restore_mujoco(skipped) for skipped in (0, 1, 2)),
    _restore_state,
    _restore_angle,
    _restore_reacher,
    _restore_double_pendulum,
)
