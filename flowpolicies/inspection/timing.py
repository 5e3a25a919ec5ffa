"""Whether actions and rewards belong to the steps that they stand beside, by regression.

A row of aligned data obeys s' = f(s, a), and a Markov state needs no other action. So of the actions a[i-1], a[i] and
a[i+1] the one that belongs to the step i alone explains s'[i] - s[i] beyond what the other two do; and of all steps it
is best read off its own, from (s, s'). Feedback blurs each of the two signs, in different ways: a policy's next action
tells where the state went, and its own action is known from s. A shift is reported if both show it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.inspection.ends import drift_finding
from flowpolicies.inspection.findings import SIDES, Array, Finding, Rows, Vectors, draw, fault_of_all_rows, found
from flowpolicies.inspection.regression import (
    EXPLAINED,
    LEAST_GAIN,
    LEAST_ROWS,
    MOST_ROWS,
    Ridge,
    explained,
    standardise,
)

CLEARER = 3.0
"""How many times more a shifted action must explain than the row's own."""

REWARD_CLEARER = 0.25
"""Ratio of unexplained variances below which a shifted reward fits better."""

REWARD_OFF = 0.05
"""Least error of a shifted reward at the ends of trajectories, as a share of the range of rewards."""

REWARD_EXPLAINED = 0.999
"""Share of the variance of rewards that their own rows explain if they are beyond suspicion."""

_REBUILD = "Rebuild the rows from the episodes so that actions[i] is the one taken in observations[i]."


def choose_rows(dataset: TransitionDataset, count: int) -> Rows:
    """Rows that have a row before and one after them in their trajectory, in random order."""
    rows = draw(1, len(dataset) - 1, 2 * min(count, MOST_ROWS))
    is_inner = (np.asarray(dataset.terminals[rows]) != 1) & (np.asarray(dataset.terminals[rows - 1]) != 1)
    chosen: Rows = rows[is_inner][: min(count, MOST_ROWS)]
    return chosen


def check_action_timing(dataset: TransitionDataset, rows: Rows) -> list[Finding]:
    """The action of a row is the one that led from its s to its s'."""
    vectors = Vectors(dataset)
    if len(rows) < LEAST_ROWS or not vectors.width:
        why = "only images" if not vectors.width else f"fewer than {LEAST_ROWS} rows with neighbours"
        return [found(dataset, "alignment", "info", f"whether actions belong to their rows cannot be judged: {why}")]
    actions = {lag: standardise(vectors.actions(rows + lag)) for lag in (-1, 0, 1)}
    forward = _own_shares(standardise(vectors.now(rows)), standardise(vectors.steps(rows)), actions)
    backward = {
        lag: _readable(vectors.now(rows - lag), vectors.next(rows - lag), vectors.actions(rows)) for lag in (-1, 0, 1)
    }
    lag = max((-1, 1), key=lambda lag: forward[lag])
    is_shift = forward[lag] > max(LEAST_GAIN, CLEARER * forward[0]) and backward[lag] > backward[0]
    drift = _drift(dataset, vectors)
    if drift is not None and not (is_shift and backward[lag] > drift.backward):
        text = "the step of an action stands as many rows later as there are trajectories before it"
        return [drift_finding(dataset, f"{text} ({drift.backward:.0%} of the actions can be read from it)")]
    if is_shift:
        return [_shift_finding(dataset, lag, forward, backward)]
    if max(forward.values()) < LEAST_GAIN:
        far = _far_shift(dataset, vectors, rows)
        if far is not None:
            return [far]
        text = "whether actions belong to their rows cannot be judged: they tell no more of a step than the state does"
        return [found(dataset, "alignment", "info", text, "So it is with a deterministic policy, for example.")]
    return []


def _shift_finding(
    dataset: TransitionDataset, lag: int, forward: dict[int, float], backward: dict[int, float]
) -> Finding:
    """The action that explains row i stands in row i + `lag`."""
    return fault_of_all_rows(
        dataset,
        "alignment",
        f"actions are shifted by one row: {'the next one' if lag == 1 else 'the one before'} explains s' - s, the "
        f"row's own does not (they alone explain {forward[lag]:.2f} and {forward[0]:.2f} component variances; from s "
        f"and s' {backward[lag]:.0%} and {backward[0]:.0%} of the actions can be read)",
        f"{_REBUILD} A robot that executes commands one step late looks the same: then put the last action into the "
        "observation.",
    )


def _far_shift(dataset: TransitionDataset, vectors: Vectors, rows: Rows) -> Finding | None:
    """Actions that stand two or three rows from their own."""
    ends, gains = dataset.episode_ends, {}
    for lag in (0, -2, 2, -3, 3):
        there = np.clip(rows + lag, 0, len(dataset) - 1)
        inside = np.searchsorted(ends, rows) == np.searchsorted(ends, there)
        here, there = rows[inside], there[inside]
        if len(here) >= LEAST_ROWS:
            gains[lag] = _gains(vectors.now(here), vectors.next(here), standardise(vectors.actions(there)))
    lag = max(gains, key=lambda lag: gains[lag].forward, default=0)
    if not lag or gains[lag].forward < max(LEAST_GAIN, CLEARER * gains[0].forward):
        return None
    if gains[lag].backward <= gains[0].backward:  # An action that can be read off its own state is the policy's.
        return None
    place = f"{abs(lag)} rows {'on' if lag > 0 else 'back'}"
    text = (
        f"actions are shifted: the one {place} explains s' - s, the row's own does not ({gains[lag].backward:.0%} and "
        f"{gains[0].backward:.0%} of the actions can be read from s and s')"
    )
    return fault_of_all_rows(dataset, "alignment", text, _REBUILD)


def _own_shares(states: Array, steps: Array, actions: dict[int, Array]) -> dict[int, float]:
    """Variance of the steps that each action explains and the other two do not, summed over the witnesses."""
    everything = explained(states, steps, linear=np.concatenate(list(actions.values()), axis=1))
    witnesses = everything > EXPLAINED
    shares = {}
    for lag in actions:
        others = np.concatenate([actions[other] for other in actions if other != lag], axis=1)
        gain = np.maximum(everything - explained(states, steps, linear=others), 0)
        shares[lag] = float(gain[witnesses].sum())
    return shares


def _readable(now: Array, then: Array, actions: Array) -> float:
    """Share of the actions that can be read off the steps from `now` to `then`."""
    inputs = np.concatenate([standardise(now), standardise(then - now)], axis=1)
    return float(explained(inputs, actions).mean())


def _drift(dataset: TransitionDataset, vectors: Vectors) -> _Gains | None:
    """What actions gain where the step of row i stands as many rows later as there are trajectories before it.

    None unless that is clearly more than in their own rows.
    """
    ends, last = dataset.episode_ends, len(dataset) - 1
    rows = draw(int(ends[0]) + 1, last, 2 * MOST_ROWS)
    rows = rows[rows + np.searchsorted(ends, rows) + 1 <= last][:MOST_ROWS]
    if len(rows) < LEAST_ROWS:
        return None
    later = rows + np.searchsorted(ends, rows)
    actions = standardise(vectors.actions(rows))
    here = _gains(vectors.now(rows), vectors.next(rows), actions)
    there = _gains(vectors.now(later), vectors.now(later + 1), actions)
    is_clear = there.forward > max(LEAST_GAIN, CLEARER * here.forward) and there.backward > here.backward
    return there if is_clear else None


class _Gains(NamedTuple):
    forward: float
    """Component variances of the step that the action explains beyond the state."""
    backward: float
    """Share of the actions that can be read off the step."""


def _gains(now: Array, then: Array, actions: Array) -> _Gains:
    states, steps = standardise(now), standardise(then - now)
    everything = explained(states, steps, linear=actions)
    gain = np.maximum(everything - explained(states, steps), 0)[everything > EXPLAINED]
    return _Gains(float(gain.sum()), _readable(now, then, actions))


def check_reward_timing(dataset: TransitionDataset, rows: Rows) -> list[Finding]:
    """The reward of a row is that of its own step."""
    vectors, rewards = Vectors(dataset), np.asarray(dataset.rewards, np.float64)
    rewards = np.clip(rewards, *np.quantile(rewards[rows], (0.001, 0.999))) if len(rows) else rewards  # No outliers.
    if len(rows) < LEAST_ROWS or not vectors.width or rewards.min() == rewards.max():
        return []
    share = {lag: float(explained(_whole_rows(vectors, rows + lag), rewards[rows, None])[0]) for lag in (-1, 0, 1)}
    lag = max((-1, 1), key=lambda lag: share[lag])
    if share[0] < REWARD_EXPLAINED and share[lag] > 0.9 and 1 - share[lag] < REWARD_CLEARER * (1 - share[0]):
        evidence = f"they are explained to {share[lag]:.2%} by that row, to {share[0]:.2%} by their own"
        return [_reward_shift(dataset, lag, evidence)]
    return _reward_shift_at_ends(dataset, vectors, rows, rewards)


def _reward_shift_at_ends(dataset: TransitionDataset, vectors: Vectors, rows: Rows, rewards: Array) -> list[Finding]:
    """Rewards change little within a step, but a lot from one trajectory to the next: so only ends may tell."""
    at_end = {-1: dataset.episode_starts[1:], 1: dataset.episode_ends[:-1]}
    for lag, edge in at_end.items():
        edge = edge[:MOST_ROWS]
        if len(edge) < 5:
            continue
        seen, unseen = rows[::2], rows[1::2]
        models = {k: Ridge(_whole_rows(vectors, seen + k), rewards[seen, None]) for k in (0, lag)}
        usual, own, other = (
            float(np.median(np.abs(models[k].predict(_whole_rows(vectors, where + k))[:, 0] - rewards[where])))
            for k, where in ((lag, unseen), (0, edge), (lag, edge))
        )
        if own > max(10 * max(other, usual), REWARD_OFF * float(np.ptp(rewards))):
            evidence = f"at the ends of trajectories their own row is off by {own:.3g}, that one by {other:.3g}"
            return [_reward_shift(dataset, lag, evidence)]
    return []


def _whole_rows(vectors: Vectors, rows: Rows) -> Array:
    """States, actions and steps, `[n, 2 D + A]`."""
    return np.concatenate([vectors.inputs(rows), vectors.steps(rows)], axis=1)


def _reward_shift(dataset: TransitionDataset, lag: int, evidence: str) -> Finding:
    text = f"rewards are one step off: each belongs to the row {SIDES[lag]} it ({evidence})"
    advice = "Rebuild the rows from the episodes so that rewards[i] is what actions[i] earned."
    return fault_of_all_rows(dataset, "rewards", text, advice)
