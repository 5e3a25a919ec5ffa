"""Checks by regression of whether actions and rewards belong to the steps in whose rows they are stored.

In correct data the next observation s' of a row depends on its observation s and its action a alone. There are two
signs. Forward: of the actions a[i-1], a[i] and a[i+1], only the action of step i explains a part of s'[i] - s[i] that
the other two do not explain. Backward: an action is better predicted from (s, s') of its own step than of other steps.
A policy that reacts to the state weakens each sign in another way, because its next action depends on where the state
went, and its own action can be predicted from s alone. So a shift is reported only if both signs show it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.inspection.ends import drift_finding
from flowpolicies.inspection.findings import (
    SIDES,
    Finding,
    Rows,
    Vectors,
    fault_of_all_rows,
    not_judged,
    sample_rows,
)
from flowpolicies.inspection.regression import (
    EXPLAINED,
    LEAST_GAIN,
    LEAST_ROWS,
    MOST_ROWS,
    Ridge,
    explained,
    standardise,
)
from flowpolicies.tree import Array

CLEARER = 3.0
"""Factor by which a shifted action must explain more than the row's own action."""

DETERMINISTIC = 0.95
"""Share of the actions' variance that observations of the same row explain above which the actions belong to it."""

REWARD_CLEARER = 0.25
"""Ratio of unexplained variances, shifted to own, below which a shifted reward fits better."""

REWARD_OFF = 0.05
"""Smallest error of a shifted reward at the ends of trajectories, as a share of the range of all rewards."""

REWARD_EXPLAINED = 0.999
"""Share of the rewards' variance that their own rows explain above which they are taken to be right."""

_REBUILD = "Build the rows again from the episodes, so that actions[i] is the action taken in observations[i]."


def choose_rows(dataset: TransitionDataset, count: int) -> Rows:
    """At most `count` rows that have a row before and a row after them in their trajectory, in random order."""
    rows = sample_rows(1, len(dataset) - 1, 2 * min(count, MOST_ROWS))
    is_inner = (np.asarray(dataset.terminals[rows]) != 1) & (np.asarray(dataset.terminals[rows - 1]) != 1)
    chosen: Rows = rows[is_inner][: min(count, MOST_ROWS)]
    return chosen


def check_action_timing(dataset: TransitionDataset, rows: Rows) -> list[Finding]:
    """Reports actions that are shifted, or that drift away, from the steps to which they belong."""
    vectors = Vectors(dataset)
    if len(rows) < LEAST_ROWS or not vectors.width:
        few = f"fewer than {LEAST_ROWS} rows have neighbours in their trajectory"
        why = "observations are images or categories only" if not vectors.width else few
        return [not_judged("alignment", f"whether actions belong to their rows: {why}")]
    actions = {lag: standardise(vectors.actions(rows + lag)) for lag in (-1, 0, 1)}
    forward = _own_shares(standardise(vectors.now(rows)), standardise(vectors.steps(rows)), actions)
    backward = {
        lag: _readable(vectors.now(rows - lag), vectors.next(rows - lag), vectors.actions(rows)) for lag in (-1, 0, 1)
    }
    lag = max((-1, 1), key=lambda lag: forward[lag])
    is_shift = forward[lag] > max(LEAST_GAIN, CLEARER * forward[0]) and backward[lag] > backward[0]
    # The next action of a deterministic policy tells where the state went, better than the action that moved it there.
    is_shift = is_shift and explained(standardise(vectors.now(rows)), actions[0]).mean() < DETERMINISTIC
    drift = _drift(dataset, vectors)
    if drift is not None and not (is_shift and backward[lag] > drift.backward):
        text = "the step to which an action belongs is as many rows later as trajectories have ended before"
        return [drift_finding(dataset, f"{text} (it predicts {drift.backward:.0%} of the actions' variance)")]
    if is_shift:
        return [_shift_finding(dataset, lag, forward, backward)]
    if max(forward.values()) < LEAST_GAIN:
        far = _far_shift(dataset, vectors, rows)
        if far is not None:
            return [far]
        why = "they explain no more of a step than observations do, as those of a deterministic policy"
        return [not_judged("alignment", f"whether actions belong to their rows: {why}")]
    return []


def _shift_finding(
    dataset: TransitionDataset, lag: int, forward: dict[int, float], backward: dict[int, float]
) -> Finding:
    """A finding about the action of row i being in row i + `lag`, with the values of the two signs as evidence."""
    return fault_of_all_rows(
        dataset,
        "alignment",
        f"actions are shifted by one row: the action of the row {SIDES[lag]} explains the change of the observation, "
        f"the row's own action does not (each alone explains {forward[lag]:.2f} and {forward[0]:.2f} component "
        f"variances; the step predicts {backward[lag]:.0%} and {backward[0]:.0%} of the actions' variance)",
        f"{_REBUILD} A robot that executes its commands one step late gives the same data; then add the previous "
        "action to the observation.",
    )


def _far_shift(dataset: TransitionDataset, vectors: Vectors, rows: Rows) -> Finding | None:
    """A finding about actions that are two or three rows away from their steps, or None."""
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
    if gains[lag].backward <= gains[0].backward:  # Then it is the policy's reaction to its row.
        return None
    place = f"{abs(lag)} rows {'later' if lag > 0 else 'earlier'}"
    text = (
        f"actions are shifted: the action {place} explains the change of the observation, the row's own does not (the "
        f"step predicts {gains[lag].backward:.0%} and {gains[0].backward:.0%} of the actions' variance)"
    )
    return fault_of_all_rows(dataset, "alignment", text, _REBUILD)


def _own_shares(states: Array, steps: Array, actions: dict[int, Array]) -> dict[int, float]:
    """By lag, the variance of the steps that this action explains and the others do not, summed over components.

    Only components count that observation and actions together explain well.
    """
    everything = explained(states, steps, linear=np.concatenate(list(actions.values()), axis=1))
    predictable = everything > EXPLAINED
    shares = {}
    for lag in actions:
        others = np.concatenate([actions[other] for other in actions if other != lag], axis=1)
        gain = np.maximum(everything - explained(states, steps, linear=others), 0)
        shares[lag] = float(gain[predictable].sum())
    return shares


def _readable(now: Array, then: Array, actions: Array) -> float:
    """Share of the actions' variance that the steps from `now` to `then` predict."""
    inputs = np.concatenate([standardise(now), standardise(then - now)], axis=1)
    return float(explained(inputs, actions).mean())


def _drift(dataset: TransitionDataset, vectors: Vectors) -> _Gains | None:
    """What actions explain of the steps that are as many rows later as trajectories have ended before their row.

    None unless that is clearly more than they explain of the steps of their own rows.
    """
    ends, last = dataset.episode_ends, len(dataset) - 1
    rows = sample_rows(int(ends[0]) + 1, last, 2 * MOST_ROWS)
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
    """The two signs that actions belong to steps."""

    forward: float
    """Variance of the step that the action explains beyond the observation, summed over standardised components."""
    backward: float
    """Share of the actions' variance that the step predicts."""


def _gains(now: Array, then: Array, actions: Array) -> _Gains:
    """The two signs for the steps from `now` to `then` `[n, D]` and the actions `[n, A]`."""
    states, steps = standardise(now), standardise(then - now)
    everything = explained(states, steps, linear=actions)
    gain = np.maximum(everything - explained(states, steps), 0)[everything > EXPLAINED]
    return _Gains(float(gain.sum()), _readable(now, then, actions))


def check_reward_timing(dataset: TransitionDataset, rows: Rows) -> list[Finding]:
    """Reports rewards that belong to the step before or after their row."""
    vectors, rewards = Vectors(dataset), np.asarray(dataset.rewards, np.float64)
    rewards = np.clip(rewards, *np.quantile(rewards[rows], (0.001, 0.999))) if len(rows) else rewards
    if len(rows) < LEAST_ROWS or not vectors.width:
        why = f"fewer than {LEAST_ROWS} rows have neighbours" if vectors.width else "observations are images"
        return [not_judged("rewards", f"whether rewards belong to their rows: {why}")]
    if rewards.min() == rewards.max():
        return [not_judged("rewards", "whether rewards belong to their rows: they are all equal")]
    share = {lag: float(explained(_whole_rows(vectors, rows + lag), rewards[rows, None])[0]) for lag in (-1, 0, 1)}
    lag = max((-1, 1), key=lambda lag: share[lag])
    missed = {lag: 1 - share[lag] for lag in share}
    # If both neighbours fit better, rewards change smoothly and neither is evidence.
    is_between = missed[-lag] >= 0.9 * missed[0]
    is_clearer = share[lag] > 0.9 and missed[lag] < REWARD_CLEARER * missed[0]
    if share[0] < REWARD_EXPLAINED and is_clearer and is_between:
        evidence = f"that row explains {share[lag]:.2%} of their variance, their own row {share[0]:.2%}"
        return [_reward_shift(dataset, lag, evidence)]
    return _reward_shift_at_ends(dataset, vectors, rows, rewards)


def _reward_shift_at_ends(dataset: TransitionDataset, vectors: Vectors, rows: Rows, rewards: Array) -> list[Finding]:
    """Reports a shift that shows only at the ends of trajectories, because elsewhere rewards change slowly."""
    at_end = {-1: dataset.episode_starts[1:], 1: dataset.episode_ends[:-1]}
    for lag, edge in at_end.items():
        edge = edge[:MOST_ROWS]
        variance = float(np.var(rewards[edge])) if len(edge) else 0.0
        if len(edge) < 5 or variance < 1e-4 * float(np.var(rewards)):
            continue  # Where all rewards are equal, no prediction of them is evidence.
        seen, unseen = rows[::2], rows[1::2]
        models = {k: Ridge(_whole_rows(vectors, seen + k), rewards[seen, None]) for k in (0, lag)}
        errors = [
            np.abs(models[k].predict(_whole_rows(vectors, where + k))[:, 0] - rewards[where])
            for k, where in ((lag, unseen), (0, edge), (lag, edge))
        ]
        usual, own, other = (float(np.median(error)) for error in errors)
        fits = np.mean(errors[2] ** 2) < 0.25 * variance < 0.25 * np.mean(errors[1] ** 2)
        if fits and own > max(10 * max(other, usual), REWARD_OFF * float(np.ptp(rewards))):
            evidence = f"at the ends of trajectories, predictions from that row are off by {other:.3g}, from their own "
            evidence += f"row by {own:.3g}"
            return [_reward_shift(dataset, lag, evidence)]
    return []


def _whole_rows(vectors: Vectors, rows: Rows) -> Array:
    """Observations, actions and steps of `rows` `[n]`, `[n, 2 D + A]`."""
    return np.concatenate([vectors.inputs(rows), vectors.steps(rows)], axis=1)


def _reward_shift(dataset: TransitionDataset, lag: int, evidence: str) -> Finding:
    text = f"rewards are one step off: each belongs to the row {SIDES[lag]} it ({evidence})"
    advice = "Build the rows again from the episodes, so that rewards[i] is the reward of actions[i]."
    return fault_of_all_rows(dataset, "rewards", text, advice)
