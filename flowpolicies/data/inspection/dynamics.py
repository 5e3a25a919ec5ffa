"""Checks by regression: whether actions, observations and rewards of a row belong to the same step.

A row of aligned data obeys s' = f(s, a), and a Markov state needs no other action. So of the actions a[i-1], a[i] and
a[i+1] the one that belongs to the step i alone explains s'[i] - s[i] beyond what the other two do; and of all steps it
is best read off its own, from (s, s'). Feedback blurs each of the two signs, in different ways: a policy's next action
tells where the state went, and its own action is known from s. A shift is reported if both show it.
"""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np

from flowpolicies.data.dataset import TransitionDataset
from flowpolicies.data.inspection.ends import drift_finding
from flowpolicies.data.inspection.findings import Array, Finding, Rows, Severity, Vectors, draw, found

MOST_ROWS = 20_000
LEAST_ROWS = 300
"""Rows below which a regression says nothing."""

STRETCH = 8192
"""Consecutive rows that are searched for jumps at once."""

FEATURES = 256
RIDGE = 1e-3
EXPLAINED = 0.5
"""Share of its variance that must be explained of a component for it to be a witness: contacts are not."""

CLEARER = 3.0
"""How many times more a shifted action must explain than the row's own."""

LEAST_GAIN = 0.01
"""Share of the variance of one component that the shifted action must explain."""

REWARD_CLEARER = 0.25
"""Ratio of unexplained variances below which a shifted reward fits better."""

REWARD_OFF = 0.05
"""Least error of a shifted reward at the ends of trajectories, as a share of the range of rewards."""

REWARD_EXPLAINED = 0.999
"""Share of the variance of rewards that their own rows explain if they are beyond suspicion."""

JUMP = 2.0
"""How many times the largest usual error a jump exceeds. Ends that were left out were above 1.9 times in pendulum,
pointmaze, cube, scene, hopper and cheetah; rows inside trajectories stayed below 1.7 times."""

LEAST_JUMP = 0.7
"""And its least size, as a root mean square over components in standard deviations of a step."""


@final
class Ridge:
    """Linear regression on standardised inputs and random rectified features of them; outputs `[n, Y]`."""

    def __init__(self, inputs: Array, outputs: Array, *, linear: Array | None = None) -> None:
        generator = np.random.default_rng(0)
        self._mean, self._scale = inputs.mean(axis=0), _scale(inputs)
        count = min(FEATURES, len(inputs) // 10)
        self._weights = generator.normal(size=(inputs.shape[1], count)) * 1.5 / np.sqrt(max(inputs.shape[1], 1))
        self._offsets = generator.normal(size=count)
        features = self._features(inputs, linear)
        self._centre, self._spread = features.mean(axis=0), _scale(features)
        features = (features - self._centre) / self._spread
        self._output_mean, self._low, self._high = outputs.mean(axis=0), outputs.min(axis=0), outputs.max(axis=0)
        gram = features.T @ features + RIDGE * len(features) * np.eye(features.shape[1])
        self._solution = np.linalg.solve(gram, features.T @ (outputs - self._output_mean))

    def predict(self, inputs: Array, linear: Array | None = None) -> Array:
        """Outputs inside the range that was seen."""
        features = (self._features(inputs, linear) - self._centre) / self._spread
        outputs: Array = np.clip(features @ self._solution + self._output_mean, self._low, self._high)
        return outputs

    def _features(self, inputs: Array, linear: Array | None) -> Array:
        plain = np.clip((inputs - self._mean) / self._scale, -5, 5)
        rectified = np.maximum(plain @ self._weights + self._offsets, 0)
        return np.concatenate([plain, rectified, *([] if linear is None else [linear])], axis=1)


def explained(inputs: Array, outputs: Array, *, linear: Array | None = None) -> Array:
    """`[Y]`, share of the variance of each output that a regression on every other row explains in the rows between."""
    seen, unseen = slice(0, None, 2), slice(1, None, 2)
    part = (None, None) if linear is None else (linear[seen], linear[unseen])
    predicted = Ridge(inputs[seen], outputs[seen], linear=part[0]).predict(inputs[unseen], part[1])
    error = np.mean((outputs[unseen] - predicted) ** 2, axis=0)
    variance = np.mean((outputs[unseen] - outputs[seen].mean(axis=0)) ** 2, axis=0)
    return np.where(variance > 1e-9, np.maximum(1 - error / np.maximum(variance, 1e-9), 0), 0)


def _scale(values: Array) -> Array:
    deviation = values.std(axis=0)
    return np.where(deviation > 1e-8, deviation, 1.0)


def _standard(values: Array) -> Array:
    """Mean 0, deviation 1, and no outliers."""
    standard: Array = np.clip((values - values.mean(axis=0)) / _scale(values), -5, 5)
    return standard


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
    states, steps = _standard(vectors.now(rows)), _standard(vectors.next(rows) - vectors.now(rows))
    actions = {lag: _standard(vectors.actions(rows + lag)) for lag in (-1, 0, 1)}
    forward = _own_shares(states, steps, actions)
    backward = {lag: _inverse(vectors, rows, lag) for lag in (-1, 0, 1)}
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
    return found(
        dataset,
        "alignment",
        "fault",
        f"actions are shifted by one row: {'the next one' if lag == 1 else 'the one before'} explains s' - s, the "
        f"row's own does not (they alone explain {forward[lag]:.2f} and {forward[0]:.2f} component variances; from s "
        f"and s' {backward[lag]:.0%} and {backward[0]:.0%} of the actions can be read)",
        "Rebuild the rows from the episodes so that actions[i] is the one taken in observations[i]. A robot that "
        "executes commands one step late looks the same: then put the last action into the observation.",
        rows=np.array([0]),
        count=len(dataset),
    )


def _far_shift(dataset: TransitionDataset, vectors: Vectors, rows: Rows) -> Finding | None:
    """Actions that stand two or three rows from their own."""
    ends, gains = dataset.episode_ends, {}
    for lag in (0, -2, 2, -3, 3):
        there = np.clip(rows + lag, 0, len(dataset) - 1)
        inside = np.searchsorted(ends, rows) == np.searchsorted(ends, there)
        here, there = rows[inside], there[inside]
        if len(here) >= LEAST_ROWS:
            gains[lag] = _gains(vectors.now(here), vectors.next(here), _standard(vectors.actions(there)))
    lag = max(gains, key=lambda lag: gains[lag].forward, default=0)
    if not lag or gains[lag].forward < max(LEAST_GAIN, CLEARER * gains[0].forward):
        return None
    if gains[lag].backward <= gains[0].backward:  # An action that can be read off its own state is the policy's.
        return None
    place = f"{abs(lag)} rows {'on' if lag > 0 else 'back'}"
    text = f"actions are shifted: the one {place} explains s' - s, the row's own does not"
    return found(
        dataset,
        "alignment",
        "fault",
        f"{text} ({gains[lag].backward:.0%} and {gains[0].backward:.0%} of the actions can be read from s and s')",
        "Rebuild the rows from the episodes so that actions[i] is the one taken in observations[i].",
        rows=np.array([0]),
        count=len(dataset),
    )


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


def _inverse(vectors: Vectors, rows: Rows, lag: int) -> float:
    """Share of the actions of `rows` that can be read off the step in the row `-lag` further on."""
    now, then = vectors.now(rows - lag), vectors.next(rows - lag)
    return float(explained(np.concatenate([_standard(now), _standard(then - now)], 1), vectors.actions(rows)).mean())


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
    actions = _standard(vectors.actions(rows))
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
    states, steps = _standard(now), _standard(then - now)
    everything = explained(states, steps, linear=actions)
    gain = np.maximum(everything - explained(states, steps), 0)[everything > EXPLAINED]
    return _Gains(float(gain.sum()), float(explained(np.concatenate([states, steps], axis=1), actions).mean()))


def check_reward_timing(dataset: TransitionDataset, rows: Rows) -> list[Finding]:
    """The reward of a row is that of its own step."""
    vectors, rewards = Vectors(dataset), np.asarray(dataset.rewards, np.float64)
    rewards = np.clip(rewards, *np.quantile(rewards[rows], (0.001, 0.999))) if len(rows) else rewards  # No outliers.
    if len(rows) < LEAST_ROWS or not vectors.width or rewards.min() == rewards.max():
        return []
    share = {lag: float(explained(_steps(vectors, rows + lag), rewards[rows, None])[0]) for lag in (-1, 0, 1)}
    lag = max((-1, 1), key=lambda lag: share[lag])
    if share[0] < REWARD_EXPLAINED and share[lag] > 0.9 and 1 - share[lag] < REWARD_CLEARER * (1 - share[0]):
        evidence = f"they are explained to {share[lag]:.2%} by that row, to {share[0]:.2%} by their own"
        return [_reward_shift(dataset, lag, evidence)]
    return _reward_shift_at_ends(dataset, vectors, rows, rewards)


def _reward_shift_at_ends(dataset: TransitionDataset, vectors: Vectors, rows: Rows, rewards: Array) -> list[Finding]:
    """Rewards change little within a step, but a lot from one trajectory to the next: so only ends may tell."""
    at_end = {-1: dataset.episode_ends[:-1] + 1, 1: dataset.episode_ends[:-1]}
    for lag, edge in at_end.items():
        edge = edge[:MOST_ROWS]
        if len(edge) < 5:
            continue
        seen, unseen = rows[::2], rows[1::2]
        models = {k: Ridge(_steps(vectors, seen + k), rewards[seen, None]) for k in (0, lag)}
        usual, own, other = (
            float(np.median(np.abs(models[k].predict(_steps(vectors, where + k))[:, 0] - rewards[where])))
            for k, where in ((lag, unseen), (0, edge), (lag, edge))
        )
        if own > max(10 * max(other, usual), REWARD_OFF * float(np.ptp(rewards))):
            evidence = f"at the ends of trajectories their own row is off by {own:.3g}, that one by {other:.3g}"
            return [_reward_shift(dataset, lag, evidence)]
    return []


def _steps(vectors: Vectors, rows: Rows) -> Array:
    now = vectors.now(rows)
    return np.concatenate([now, vectors.actions(rows), vectors.next(rows) - now], axis=1)


def _reward_shift(dataset: TransitionDataset, lag: int, evidence: str) -> Finding:
    return found(
        dataset,
        "rewards",
        "fault",
        f"rewards are one step off: each belongs to the row {'before' if lag < 0 else 'after'} it ({evidence})",
        "Rebuild the rows from the episodes so that rewards[i] is what actions[i] earned.",
        rows=np.array([0]),
        count=len(dataset),
    )


def find_jumps(dataset: TransitionDataset, rows: Rows, budget: int, *, anywhere: bool = False) -> Rows:
    """Steps inside trajectories that go against the dynamics of all others, and lead where trajectories start.

    Args:
        dataset: what to search.
        rows: to learn the dynamics from.
        budget: number of rows to search.
        anywhere: give those that lead elsewhere as well; collisions are among them.
    """
    vectors, ends = Vectors(dataset), dataset.episode_ends
    if len(rows) < LEAST_ROWS or not vectors.width:
        return np.zeros(0, np.intp)
    scale = _scale(vectors.next(rows) - vectors.now(rows))
    seen, unseen = rows[::2], rows[1::2]
    states = np.concatenate([vectors.now(seen), vectors.actions(seen)], axis=1)
    model = Ridge(states, np.clip((vectors.next(seen) - vectors.now(seen)) / scale, -5, 5))

    def sizes_and_errors(where: Rows) -> tuple[Array, Array]:
        inputs = np.concatenate([vectors.now(where), vectors.actions(where)], axis=1)
        steps = (vectors.next(where) - vectors.now(where)) / scale
        return _rms(steps), _rms(np.minimum(np.abs(steps - model.predict(inputs)), 20))

    sizes, errors = sizes_and_errors(unseen)
    usual = max(JUMP * float(np.quantile(errors, 1 - max(0.001, 3 / len(unseen)))), LEAST_JUMP)
    starts = vectors.now(np.append(0, ends[:-1] + 1)[:MOST_ROWS])
    margin = 0.5 * (starts.max(axis=0) - starts.min(axis=0)) + 1e-6
    low, high = starts.min(axis=0) - margin, starts.max(axis=0) + margin
    jumps = []
    for start in _spread(len(dataset), budget):
        block = np.arange(start, min(start + STRETCH, len(dataset)))
        arrived, (size, error) = vectors.next(block), sizes_and_errors(block)
        is_near = anywhere | ((arrived >= low) & (arrived <= high)).all(axis=1)
        out = (error > usual) & (size > np.median(sizes)) & is_near  # What a wall blocks moves little.
        jumps.append(block[out & (np.asarray(dataset.terminals[block]) != 1)])
    return np.concatenate(jumps)


def _rms(values: Array) -> Array:
    root: Array = np.sqrt(np.mean(values**2, axis=1))
    return root


def _spread(length: int, budget: int) -> list[int]:
    """First rows of stretches that are spread over all rows and together about `budget` of them."""
    everywhere = np.arange(0, length, STRETCH)
    count = max(1, min(len(everywhere), budget // STRETCH))
    return [int(start) for start in everywhere[np.linspace(0, len(everywhere) - 1, count).round().astype(int)]]


def check_jumps(dataset: TransitionDataset, jumps: Rows, *, simulated: bool = False) -> list[Finding]:
    """No step inside a trajectory jumps, see `find_jumps`; `simulated`: the simulator made none of these."""
    if not len(jumps):
        return []
    lengths = np.diff(dataset.episode_ends, prepend=-1)
    episodes = np.searchsorted(dataset.episode_ends, jumps)
    others = np.setdiff1d(lengths, lengths[np.unique(episodes)])
    firsts = dataset.episode_ends[episodes] + 1 - lengths[episodes]
    severity: Severity = "warning"
    message = f"jumps inside trajectories, to where trajectories start: {len(jumps):,}"
    if simulated:
        message, severity = f"jumps inside trajectories that the simulator does not make: {len(jumps):,}", "fault"
    elif len(others) == 1 and np.all((jumps - firsts + 1) % others[0] == 0):
        # Where all other trajectories have one length, a jump after exactly that many steps is an end.
        message += f", each after {others[0]:,} steps, as long as all others are: trajectories are joined"
        severity = "fault"
    advice = (
        "If a trajectory ends there, set terminals to 1 and drop that row or give it its true next observation; "
        "teleports look the same."
    )
    return [found(dataset, "trajectories", severity, message, advice, rows=jumps)]
