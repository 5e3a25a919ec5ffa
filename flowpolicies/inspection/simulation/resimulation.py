"""Repeats stored transitions in a simulator and compares the results, by row, by component and by trajectory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.selection import SELECTIONS
from flowpolicies.data.sources import SOURCES, split_options
from flowpolicies.data.switches import FOR_ANY_SOURCE
from flowpolicies.inspection.findings import (
    OGBENCH_REWARDS,
    SIDES,
    Finding,
    Rows,
    Severity,
    Vectors,
    found,
    is_image,
    listed,
    not_judged,
    sample_rows,
)
from flowpolicies.inspection.regression import deviations
from flowpolicies.tree import Array, leaves

DISAGREE = 0.05
"""Share of the re-simulated rows that may disagree with the data.

Resting contacts are chaotic: two versions of a simulator differ there, and so does one that starts from float32 states.
"""

DISAGREE_OF_POINTS = 0.01
"""Share for observations of one or two components: what they describe, such as a point in a maze, is not chaotic."""

OFF_COMPONENTS = 0.2
"""Share of its components that must be off for a row to disagree.

A single component may flip, such as an angle that is measured on a tumbling object.
"""

OFF_ROWS = 0.1
"""Share of the re-simulated rows in which a single component may be off.

In re-simulated data of cube, scene, puzzle and pointmaze no component was off in more than 3 % of the rows.
"""

LEAST_OF_TRAJECTORY = 3
"""Smallest number of re-simulated rows of a trajectory, to judge it alone."""

LEAST_SHIFTED = 5
"""Smallest number of disagreeing rows that are tried with the actions of the neighbouring rows."""

MOST_EDGES = 0.6
"""Share of the first or of the last rows that must disagree, if the others agree, to be reported."""

REPAIRED = 0.25
"""Largest share of the disagreeing rows that still disagree with other actions, if those are the right ones."""

ELSEWHERE = 0.5
"""Share of a squared step by which the simulated step must be off to count as another one."""

TOLERANCE_OF_STEP = 0.02
"""Allowed error of a component, in standard deviations of its change in a step.

Re-simulated data of cube, scene, puzzle and pointmaze is off by less than 0.001 standard deviations. With actions that
are shifted by a row or scaled by 0.9 it is off by more than 0.05.
"""

TOLERANCE_OF_VALUE = 1e-4
"""Further allowed error, in standard deviations of the component itself, because states are stored as float32."""


class Resimulated(NamedTuple):
    """Results of one simulated step from each of n stored states."""

    next_observations: Array
    """Observations after the step, `[n, *shape]`."""
    rewards: Array | None
    """Rewards of the environment, `[n]`; None: it does not compute those of the data."""
    masks: Array | None
    """Masks of the environment, `[n]`: 1 - termination; None: it does not compute those of the data."""


Resimulate = Callable[[Rows, Array], Resimulated]
"""Function that simulates one step from the stored states of some rows `[n]`, with the given actions `[n, *A]`."""


def open_resimulator(address: str, dataset: TransitionDataset, **options: Any) -> Resimulate | None:
    """The re-simulation that the source of an address offers for its dataset, or None if it offers none.

    A source offers it as an entry point in the group `flowpolicies.resimulators` or through
    `flowpolicies.register_source`: a function `open_resimulator(name, dataset, **options) -> Resimulate`, which is
    called with the options that the dataset was loaded with.

    Raises:
        ValueError: if the source cannot re-simulate this dataset; the message says why.
        ImportError: if the package of the source cannot be imported.
    """
    base, written = split_options(address)
    source, _, name = base.partition(":")
    if source not in SOURCES["resimulators"]:
        return None
    if SELECTIONS in dataset.provenance:
        raise ValueError("the dataset is a selection of trajectories, whose rows are not those of the file.")
    written = {key: value for key, value in written.items() if key not in FOR_ANY_SOURCE}
    resimulate: Resimulate = SOURCES["resimulators"].find(source)(name, dataset, **{**written, **options})
    return resimulate


class _Comparison(NamedTuple):
    """Simulated steps of some rows beside the stored ones."""

    off: Array
    """Components whose next observation is off, `[n, D]`."""
    error: Array
    """Simulated minus stored next observation, `[n, D]`."""
    steps: Array
    """Stored steps, `[n, D]`."""

    @property
    def rows(self) -> Array:
        """Rows that disagree, `[n]`."""
        disagree: Array = np.mean(self.off, axis=1) > OFF_COMPONENTS
        return disagree

    @property
    def fit(self) -> float:
        """Share of the squared step that the simulator explains, as the median of the rows with a component off."""
        which = self.off.any(axis=1)
        if not which.any():
            return 1.0
        scale = deviations(self.steps, constant=np.inf)
        missed, moved = (np.sum((part[which] / scale) ** 2, axis=1) for part in (self.error, self.steps))
        return float(1 - np.median(missed / np.maximum(moved, 1e-12)))


def check_resimulation(
    dataset: TransitionDataset, resimulate: Resimulate, rows: Rows, *, least_rewards: float = 0.0
) -> list[Finding]:
    """Reports how many of `rows` disagree with the simulator, and whether shifted or scaled actions explain it.

    Args:
        dataset: the dataset.
        resimulate: the simulator.
        rows: rows to simulate.
        least_rewards: share of the rewards that the simulator may miss by itself.
    """
    vectors, rows = Vectors(dataset), np.sort(rows)
    result = resimulate(rows, dataset.actions[rows])
    if any(is_image(array) for array in leaves(dataset.observations)):
        rewards = _check_resimulated_rewards(dataset, resimulate, rows, result, least_rewards)
        return [not_judged("resimulation", "observations are images; only rewards and masks are compared"), *rewards]
    tolerance = _tolerance(vectors, rows)
    own = _compare(vectors, rows, result, tolerance)
    off, agree = own.rows, ~own.off.any(axis=1)
    # Rewards are judged where the step is the stored one, because others have rewards of their own.
    rewards_made, masks_made = (None if part is None else part[agree] for part in (result.rewards, result.masks))
    made = Resimulated(result.next_observations[agree], rewards_made, masks_made)
    rewards = _check_resimulated_rewards(dataset, resimulate, rows[agree], made, least_rewards) if agree.any() else []
    text = f"of {len(rows):,} re-simulated transitions, {off.mean():.1%} disagree with the stored next observation"
    shifted = _shifted_actions(dataset, resimulate, rows, off, (tolerance, text))
    if shifted is not None:
        return [shifted, *rewards]
    edges = _check_edges(dataset, rows, off)
    if edges is not None:
        return [edges, *rewards]
    if off.mean() <= (DISAGREE if vectors.width > 2 else DISAGREE_OF_POINTS):
        return [*_single_components(dataset, rows, own, text), *rewards]
    return [_all_rows(dataset, resimulate, rows, own, (result, tolerance, text)), *rewards]


def _tolerance(vectors: Vectors, rows: Rows) -> Array:
    """Error of each component `[D]` up to which a simulated step agrees with the stored one."""
    usual = TOLERANCE_OF_STEP * _robust(vectors.steps(rows)) + TOLERANCE_OF_VALUE * _robust(vectors.now(rows))
    tolerance: Array = usual + 1e-6
    return tolerance


def _compare(vectors: Vectors, rows: Rows, result: Resimulated, tolerance: Array) -> _Comparison:
    error = _flat(result.next_observations) - vectors.next(rows)
    return _Comparison(~(np.abs(error) <= tolerance), error, vectors.steps(rows))


def _robust(values: Array) -> Array:
    """Standard deviation of each component `[D]` without the most extreme 2 % of its values, which may be wrong."""
    inner: Array = np.clip(values, *np.quantile(values, (0.01, 0.99), axis=0)).std(axis=0)
    return np.where(inner > 0, inner, values.std(axis=0))


def _shifted_actions(
    dataset: TransitionDataset, resimulate: Resimulate, rows: Rows, off: Array, told: tuple[Array, str]
) -> Finding | None:
    """A finding if the actions of neighbouring rows make the steps that the rows' own actions do not make."""
    (tolerance, text), wrong = told, rows[off]
    if len(wrong) < LEAST_SHIFTED:  # A few rows are enough: they may be those of one trajectory.
        return None
    for lag, side in SIDES.items():
        there = np.clip(wrong + lag, 0, len(dataset) - 1)
        result = resimulate(wrong, dataset.actions[there])
        still = int(_compare(Vectors(dataset), wrong, result, tolerance).rows.sum())
        if still <= REPAIRED * len(wrong):
            text += f"; with the action of the row {side} it, {still / len(rows):.1%} do: actions are shifted"
            return found(dataset, "resimulation", "fault", text, _REBUILD, rows=wrong)
    return None


def _check_edges(dataset: TransitionDataset, rows: Rows, off: Array) -> Finding | None:
    """A finding if only the first or the last rows of trajectories disagree."""
    first, last = np.isin(rows, dataset.episode_starts[1:]), np.isin(rows, dataset.episode_ends)
    for edge, where in ((last & ~first, "last"), (first & ~last, "first")):
        others = off[~first & ~last]
        if edge.sum() < LEAST_OF_TRAJECTORY or off[edge].mean() < MOST_EDGES or others.mean() > DISAGREE:
            continue
        text = (
            f"the simulator does not make the {where} steps of trajectories: {off[edge].sum():,} of {edge.sum():,} "
            f"disagree, but {others.mean():.1%} of the other rows"
        )
        advice = (
            "Terminals may be a row away from the ends, or the next observation of a last row may be the first one of "
            "the next trajectory. Mark the last rows, and store the states that they led to."
        )
        return found(dataset, "resimulation", "fault", text, advice, rows=rows[edge & off])
    return None


def _all_rows(
    dataset: TransitionDataset,
    resimulate: Resimulate,
    rows: Rows,
    own: _Comparison,
    told: tuple[Resimulated, Array, str],
) -> Finding:
    """The finding about more disagreeing rows than chaos explains."""
    (result, tolerance, text), vectors, wrong = told, Vectors(dataset), rows[own.rows]
    factor = _action_factor(vectors, rows, result, resimulate(rows, np.zeros_like(dataset.actions[rows])))
    again = resimulate(rows, (factor * dataset.actions[rows]).astype(np.float32))
    scaled = _compare(vectors, rows, again, tolerance).rows
    if abs(factor - 1) > 0.05 and scaled.mean() <= max(DISAGREE, REPAIRED * own.rows.mean()):
        text += f"; with {factor:.3g} times the actions {scaled.mean():.1%} do: actions were scaled"
        advice = "Store the actions that were executed, and pass the action_space= that gives their bounds."
        return found(dataset, "resimulation", "fault", text, advice, rows=wrong)
    if own.fit > 0.95:
        text += ", but only slightly"
        advice = "Another version of the simulator may be the reason: compare with the versions in the provenance."
        return found(dataset, "resimulation", "warning", text, advice, rows=wrong)
    worst = np.argsort(-own.off.mean(axis=0), kind="stable")
    text += f", most often in the components {listed(worst[own.off.mean(axis=0)[worst] > OFF_ROWS], 8)}"
    return found(dataset, "resimulation", "fault", text, _REBUILD, rows=wrong)


def _single_components(dataset: TransitionDataset, rows: Rows, own: _Comparison, text: str) -> list[Finding]:
    """Findings about components that are off although most components of their rows agree."""
    shares = own.off.mean(axis=0)
    off = np.flatnonzero((shares > OFF_ROWS) & (own.off.sum(axis=0) >= LEAST_SHIFTED))
    if len(off):
        sure = float(np.median(_relative(own)[own.off[:, off].any(axis=1)][:, off].max(axis=1))) > 0.2
        text = f"{text}, but the components {listed(off, 8)} are off in up to {shares.max():.1%} of them"
        advice = "Check the units, the order, the sign and the timing of these components."
        severity: Severity = "fault" if sure else "warning"
        wrong = rows[own.off[:, off].any(axis=1)]
        return [found(dataset, "resimulation", severity, text, advice, rows=wrong)]
    info = found(dataset, "resimulation", "info", text, count=int(own.rows.sum()))
    episodes, at, counts = np.unique(
        np.searchsorted(dataset.episode_ends, rows), return_inverse=True, return_counts=True
    )
    bad = np.array([np.bincount(at, column) for column in own.off.T.astype(float)]).T.reshape(len(episodes), -1)
    odd = (counts >= LEAST_OF_TRAJECTORY) & (bad > 0.75 * counts[:, None]).any(axis=1)
    # A trajectory of which all rows are off in a component that hardly ever is elsewhere was recorded in another way.
    odd &= np.array([(own.off[at != i] if len(episodes) > 1 else own.off).mean() < DISAGREE for i in range(len(odd))])
    if not odd.any():
        return [info]
    text = f"trajectories that the simulator does not repeat: {odd.sum():,} ({listed(episodes[odd], 5)})"
    return [info, found(dataset, "resimulation", "fault", text, _REBUILD, rows=dataset.episode_starts[episodes[odd]])]


def _relative(own: _Comparison) -> Array:
    """Absolute errors in units of the usual step of their component, `[n, D]`."""
    scale = _robust(own.steps)
    return np.abs(own.error) / np.where(scale > 0, scale, np.inf)


def unexplained(dataset: TransitionDataset, resimulate: Resimulate, rows: Rows) -> Rows:
    """Those of `rows` whose step the simulator does not make."""
    vectors, result = Vectors(dataset), resimulate(rows, dataset.actions[rows])
    error = _flat(result.next_observations) - vectors.next(rows)
    off = np.sum(error**2, axis=1) > ELSEWHERE * np.sum(vectors.steps(rows) ** 2, axis=1)
    # First rows are left out: no end can be missing there, and objects that a reset puts into each other separate in a
    # direction that small errors decide.
    left: Rows = rows[off & ~np.isin(rows - 1, dataset.episode_ends) & (rows > 0)]
    return left


def _flat(observations: Array) -> Array:
    return np.asarray(observations, np.float64).reshape(len(observations), -1)


_REBUILD = "Rebuild the rows so that actions[i] leads from observations[i] to next_observations[i]."


def _action_factor(vectors: Vectors, rows: Rows, own: Resimulated, idle: Resimulated) -> float:
    """The factor of the actions with which the simulated step is nearest to the stored one, as the median of the rows.

    Args:
        vectors: the dataset.
        rows: the simulated rows.
        own: results with the stored actions.
        idle: results with actions of 0.
    """
    then, start = vectors.next(rows), _flat(idle.next_observations)
    scale = deviations(vectors.steps(rows), constant=np.inf)
    effect, wanted = (_flat(own.next_observations) - start) / scale, (then - start) / scale
    size = np.sum(effect**2, axis=1)
    return float(np.median(np.sum(effect * wanted, axis=1)[size > 0] / size[size > 0])) if size.any() else 1.0


def judges_rewards(resimulate: Resimulate, dataset: TransitionDataset) -> bool:
    """Whether the simulator computes rewards of the kind that the data hold."""
    first = np.zeros(1, np.intp)
    return resimulate(first, dataset.actions[first]).rewards is not None


def _wrong_rewards(dataset: TransitionDataset, where: Rows, judged: Resimulated, stored: Rows) -> Rows:
    """Those of the rows `where` in which the stored rewards or masks of the rows `stored` are not the simulator's."""
    wrong = np.zeros(len(where), bool)
    if judged.rewards is not None:
        rewards = np.asarray(dataset.rewards)[stored]
        wrong |= ~(np.abs(rewards - judged.rewards) <= 1e-4 * np.maximum(1, np.abs(judged.rewards)))
    if judged.masks is not None:
        wrong |= np.asarray(dataset.masks)[stored] != judged.masks
    return where[wrong]


def _check_resimulated_rewards(
    dataset: TransitionDataset, resimulate: Resimulate, rows: Rows, result: Resimulated, least: float
) -> list[Finding]:
    """Reports rewards and masks that differ from the environment's, and whether those of a neighbouring row fit."""
    own = _wrong_rewards(dataset, rows, result, rows)
    if len(own) <= least * len(rows):
        own = _wrong_rewards(dataset, rows, result._replace(rewards=None), rows)
    if not len(own):
        return []
    text = f"rewards or masks of {len(own):,} of {len(rows):,} re-simulated transitions differ from the environment's"
    ends = result.masks is not None and np.isin(own, _terminations(dataset, rows, result)).all()
    if ends:
        text += ", all of them where it terminates"
        advice = "A bonus or a penalty of your own for a termination looks so; otherwise compute the rewards again."
        return [found(dataset, "rewards", "warning", text, advice, rows=own)]
    for lag, side in SIDES.items():
        inside = rows[(rows + lag >= 0) & (rows + lag < len(dataset))]
        there = resimulate(inside + lag, dataset.actions[inside + lag])
        if len(_wrong_rewards(dataset, inside, there, inside)) <= 0.1 * len(own):
            text += f", but equal those of the row {side} them: rewards are one step off"
            break
    advice = f"Compute the rewards again with the environment. {OGBENCH_REWARDS}"
    return [found(dataset, "rewards", "fault", text, advice, rows=own)]


def _terminations(dataset: TransitionDataset, rows: Rows, result: Resimulated) -> Rows:
    """Those of the rows whose mask is 0 in the data and in the environment."""
    ended: Rows = rows[(np.asarray(dataset.masks)[rows] == 0) & (result.masks == 0)]
    return ended


def rows_to_resimulate(dataset: TransitionDataset, count: int) -> Rows:
    """Random rows, ascending; a third of them are where reward or mask changes, because only there a shift shows."""
    generator, rewards, masks = np.random.default_rng(0), np.asarray(dataset.rewards), np.asarray(dataset.masks)
    changes = np.flatnonzero((rewards[1:] != rewards[:-1]) | (masks[1:] != masks[:-1]))
    chosen = generator.choice(changes, min(len(changes), count // 6), replace=False)
    chosen = np.union1d(chosen, chosen + 1)
    edges = np.concatenate([dataset.episode_starts, dataset.episode_ends])
    edges = generator.choice(edges, min(len(edges), count // 5), replace=False)
    chosen = np.union1d(chosen, edges)
    return np.union1d(chosen, sample_rows(0, len(dataset), count - len(chosen)))
