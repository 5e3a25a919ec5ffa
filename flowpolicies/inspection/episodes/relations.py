"""Checks for trajectories that obey other equations than the rest: other units, signs, orders, delays or scales.

Many changes of a state are linear in the other columns of their row: a position changes by its velocity, a velocity by
the force. Such an equation, learned from one trajectory, holds in all others, whatever their policy was.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.inspection.findings import Finding, Rows, Vectors, found, listed, not_judged
from flowpolicies.inspection.regression import Ridge
from flowpolicies.tree import Array

MOST_TRAJECTORIES = 40
"""Largest number of trajectories that are compared."""

MOST_STEPS = 300
"""Largest number of rows that are taken of each."""

MOST_TEACHERS = 12
"""Largest number of trajectories from which equations are learned."""

LEAST_TRAJECTORIES = 4
"""Smallest number of trajectories that are compared."""

MOST_COMPONENTS = 64
"""Largest width of an observation."""

HOLDS = 0.02
"""Share of the variance that an equation may leave unexplained."""

BROKEN = 0.5
"""Share of the variance that it leaves unexplained in a trajectory that obeys another equation."""

CURVED = 0.1
"""Share of the variance that a nonlinear equation of all trajectories may leave unexplained."""

MOST_ROWS = 3000
"""Largest number of rows for a nonlinear equation."""

LEAST_FACTOR = 5.0
"""Smallest factor between the spreads of a component that may be two units."""

LEAST_ODD = 0.05
"""Smallest share of the trajectories that must obey another equation."""


class _Compared(NamedTuple):
    """Trajectories and their rows."""

    numbers: Rows
    """Numbers of the trajectories in the dataset."""
    inputs: list[Array]
    """Observations, actions and steps of each one, standardised, and a column of ones, `[n, X]`."""
    targets: list[Array]
    """Steps and rewards of each one, standardised, `[n, D + 1]`."""
    width: int
    """Number of components D of an observation."""


def check_relations(dataset: TransitionDataset) -> list[Finding]:
    """Reports trajectories in which a change of the state, or the reward, obeys another equation than in most."""
    vectors = Vectors(dataset)
    unjudged = not_judged("trajectories", "whether all trajectories obey the same equations: they are too few or short")
    if not 0 < vectors.width <= MOST_COMPONENTS:
        return [] if not vectors.width else [unjudged]
    data = _read(dataset, vectors)
    if data is None:
        return [unjudged]
    odd_by: dict[str, tuple[list[int], Rows]] = {}
    for target in range(data.width + 1):
        odd = _odd(data, target)
        if odd is not None:
            name = "rewards" if target == data.width else "observations"
            components, rows = odd_by.get(name, ([], np.zeros(0, np.intp)))
            odd_by[name] = ([*components, target], np.union1d(rows, data.numbers[odd]))
    return [_finding(dataset, name, *odd, data.numbers) for name, odd in odd_by.items()]


def _finding(dataset: TransitionDataset, name: str, components: list[int], odd: Rows, compared: Rows) -> Finding:
    what = "the rewards" if name == "rewards" else f"the changes of the components {listed(components, 8)}"
    text = (
        f"trajectories that obey other equations than trajectory {compared[0]}: {len(odd):,} of {len(compared):,} "
        f"({listed(odd, 5)}); they differ in {what}"
    )
    advice = (
        "Look for components, actions or rewards of these trajectories in other units, with another sign, order, scale "
        "or delay, and convert them."
    )
    check = "rewards" if name == "rewards" else "trajectories"
    return found(dataset, check, "fault", text, advice, rows=dataset.episode_starts[odd])


def _read(dataset: TransitionDataset, vectors: Vectors) -> _Compared | None:
    actions = int(np.prod(dataset.actions.shape[1:]))
    least = 2 * (2 * vectors.width + actions) + 20
    long = np.flatnonzero(dataset.episode_lengths - 1 >= least)
    if len(long) < LEAST_TRAJECTORIES:
        return None
    numbers = long[np.unique(np.linspace(0, len(long) - 1, MOST_TRAJECTORIES).round().astype(int))]
    columns = []
    for number in numbers:
        start = int(dataset.episode_starts[number])
        rows = np.arange(start, start + min(int(dataset.episode_lengths[number]) - 1, MOST_STEPS))
        columns.append((vectors.inputs(rows), vectors.steps(rows), np.asarray(dataset.rewards)[rows, None]))
    inputs = [np.concatenate([known, steps], axis=1) for known, steps, _ in columns]
    targets = [np.concatenate([steps, rewards], axis=1) for _, steps, rewards in columns]
    scale, size = (_scale(np.concatenate(part)) for part in (inputs, targets))
    return _Compared(
        numbers,
        [np.concatenate([part / scale, np.ones((len(part), 1))], axis=1) for part in inputs],
        [part / size for part in targets],
        vectors.width,
    )


def _scale(values: Array) -> Array:
    spread = values.std(axis=0)
    return np.where(spread > 1e-8, spread, 1.0)


def _odd(data: _Compared, target: int) -> Array | None:
    """Which trajectories obey another equation for a target than most, `[K]` bool; None if no equation holds."""
    width = data.width
    step = len(data.inputs[0][0]) - 1 - width + target
    used = np.arange(len(data.inputs[0][0])) != (step if target < width else -1)
    inputs, outputs = [part[:, used] for part in data.inputs], [part[:, target] for part in data.targets]
    teachers = np.unique(np.linspace(0, len(inputs) - 1, MOST_TEACHERS).round().astype(int))
    errors = np.array([_errors(_solve([inputs[i]], [outputs[i]]), inputs, outputs) for i in teachers])
    best = int(np.argmax((errors < HOLDS).sum(axis=1)))
    holds, broken = errors[best] < HOLDS, errors[best] > BROKEN
    if holds.sum() < max(2, 0.3 * len(inputs)) or broken.sum() < max(2, LEAST_ODD * len(inputs)):
        return None
    # If one equation can hold in all of them, the first one only lacked variety, or was the tangent of a curve.
    together = _errors(_solve(inputs, outputs), inputs, outputs)
    if np.median(together[broken]) < BROKEN / 3:
        return None
    causes = [part[:, : -1 - width] for part in data.inputs]
    is_scaled = target < width and _is_scaled(causes, outputs, target, (holds, broken))
    if not is_scaled and _is_curved(causes, outputs, holds, broken):
        return None
    odd: Array = ~broken if broken[0] else broken
    return odd


def _is_curved(inputs: list[Array], outputs: list[Array], holds: Array, broken: Array) -> bool:
    """Whether one nonlinear equation of observations and actions holds in all trajectories."""
    rng = np.random.default_rng(0)
    parts = []
    for which in (holds, broken):
        rows = np.concatenate([inputs[i] for i in np.flatnonzero(which)])
        values = np.concatenate([outputs[i] for i in np.flatnonzero(which)])
        order = rng.permutation(len(rows))[:MOST_ROWS]
        parts.append((rows[order], values[order, None]))
    half = min(len(rows) for rows, _ in parts) // 2
    model = Ridge(*(np.concatenate([part[i][:half] for part in parts]) for i in (0, 1)))
    rows, values = (column[half : 2 * half] for column in parts[1])
    return bool(np.mean((model.predict(rows) - values) ** 2) < CURVED * values.var())


def _is_scaled(inputs: list[Array], outputs: list[Array], target: int, groups: tuple[Array, Array]) -> bool:
    """Whether the nonlinear equation of the first group holds in the second one after a component is scaled back."""
    (rows, values), (others, wrong) = (
        [np.concatenate([part[i] for i in np.flatnonzero(which)][:5]) for part in (inputs, outputs)] for which in groups
    )
    factor = float(np.std(others[:, target]) / max(np.std(rows[:, target]), 1e-12))
    if max(factor, 1 / max(factor, 1e-12)) < LEAST_FACTOR:
        return False
    model = Ridge(rows, values[:, None])
    back = others.copy()
    back[:, target] = (others[:, target] - others[:, target].mean()) / factor + rows[:, target].mean()
    error = model.predict(back)[:, 0] - wrong / factor
    return bool(np.mean(error**2) < BROKEN * np.var(wrong / factor))


def _solve(inputs: list[Array], outputs: list[Array]) -> Array:
    """Coefficients of the linear equation of some trajectories, which count alike."""
    size = inputs[0].shape[1]
    gram, product = np.zeros((size, size)), np.zeros(size)
    for part, values in zip(inputs, outputs, strict=True):
        gram += part.T @ part / len(part)
        product += part.T @ values / len(part)
    coefficients: Array = np.linalg.solve(gram + 1e-6 * len(inputs) * np.eye(size), product)
    return coefficients


def _errors(coefficients: Array, inputs: list[Array], outputs: list[Array]) -> Array:
    """Share of each trajectory's variance that the equation leaves unexplained; NaN where nothing varies."""
    missed = [float(np.mean((values - part @ coefficients) ** 2)) for part, values in zip(inputs, outputs, strict=True)]
    varied = [float(np.var(values)) for values in outputs]
    return np.array([miss / var if var > 1e-6 else np.nan for miss, var in zip(missed, varied, strict=True)])
