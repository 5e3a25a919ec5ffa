"""Checks against the environment: spaces, where episodes start, and what the simulator makes of stored states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.sources import SOURCES, split_options
from flowpolicies.inspection.columns import Column
from flowpolicies.inspection.findings import SIDES, Array, Finding, Rows, Vectors, draw, found, is_image, parts
from flowpolicies.inspection.regression import deviations
from flowpolicies.spaces.layout import space_fits

RESETS = 20

DISAGREE = 0.05
"""Share of re-simulated rows that may disagree: resting contacts are where simulators of two versions, or one that
starts from float32 states, part."""

OFF_COMPONENTS = 0.2
"""Share of its components by which a row disagrees; a single one may flip, as an angle that is read off a tumbling
object does."""

LEAST_SHIFTED = 5
"""Rows that must disagree to be tried with the actions of the rows beside."""

REPAIRED = 0.25
"""Share of the rows that disagreed which may still do with other actions, for these to be the right ones."""

ELSEWHERE = 0.5
"""Share of a squared step by which the simulator must miss it to have gone elsewhere."""

TOLERANCE_OF_STEP = 0.02
"""Allowed error of a component, in standard deviations of its change in a step. Re-simulated cube, scene, puzzle and
pointmaze data is off by less than 0.1 % of it; an action shifted by a row, or scaled by 0.9, by more than 5 %."""

TOLERANCE_OF_VALUE = 1e-4
"""Added to it, in standard deviations of the component: states are stored as float32."""


class Resimulated(NamedTuple):
    """What the simulator makes of stored states."""

    next_observations: Array
    """`[n, *shape]`."""
    rewards: Array | None
    """`[n]`, judged as the environment does; None: it cannot judge those of the data."""
    masks: Array | None
    """`[n]`; None as the rewards are."""


Resimulate = Callable[[Rows, Array], Resimulated]
"""From rows of the dataset and the actions to take there, `[n, *A]`, to what comes of them."""


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
    resimulate: Resimulate = SOURCES["resimulators"].find(source)(name, dataset, **{**written, **options})
    return resimulate


def check_resimulation(dataset: TransitionDataset, resimulate: Resimulate, rows: Rows) -> list[Finding]:
    """The simulator leads from the stored state with the row's action to the row's next observation and reward."""
    vectors, rows = Vectors(dataset), np.sort(rows)
    result = resimulate(rows, dataset.actions[rows])
    rewards = _check_resimulated_rewards(dataset, resimulate, rows, result)
    if any(is_image(part) for _, part in parts(dataset.observations, "")):
        return rewards
    off, fit = _disagreement(vectors, rows, result)
    text = f"of {len(rows):,} re-simulated transitions, {off.mean():.1%} disagree with the stored next observation"
    wrong = rows[off]
    if len(wrong) >= LEAST_SHIFTED:  # Even few of them: they may be one trajectory.
        for lag, side in SIDES.items():
            there = np.clip(wrong + lag, 0, len(dataset) - 1)
            still = _disagreement(vectors, rows, result, (off, resimulate(wrong, dataset.actions[there])))[0].sum()
            if still <= REPAIRED * len(wrong):
                text += f"; with the action of the row {side} it, {still / len(rows):.1%} do: actions are shifted"
                return [found(dataset, "resimulation", "fault", text, _REBUILD, rows=wrong), *rewards]
    if off.mean() <= DISAGREE:
        return [found(dataset, "resimulation", "info", text, count=int(off.sum())), *rewards]
    factor = _action_factor(vectors, rows, result, resimulate(rows, np.zeros_like(dataset.actions[rows])))
    scaled, _ = _disagreement(vectors, rows, resimulate(rows, (factor * dataset.actions[rows]).astype(np.float32)))
    if abs(factor - 1) > 0.05 and scaled.mean() <= max(DISAGREE, REPAIRED * off.mean()):
        text += f"; with {factor:.3g} times the actions {scaled.mean():.1%} do: actions were scaled"
        advice = "Store the actions that were executed, and pass the action_space= that they are in."
        return [found(dataset, "resimulation", "fault", text, advice, rows=wrong), *rewards]
    if fit > 0.95:
        advice = "Another version of the simulator does that: compare the versions in the provenance."
        return [found(dataset, "resimulation", "warning", f"{text}, by little", advice, rows=wrong), *rewards]
    return [found(dataset, "resimulation", "fault", text, _REBUILD, rows=wrong), *rewards]


def unexplained(dataset: TransitionDataset, resimulate: Resimulate, rows: Rows) -> Rows:
    """Those of some rows from which the simulator leads elsewhere."""
    vectors, result = Vectors(dataset), resimulate(rows, dataset.actions[rows])
    error = _flat(result.next_observations) - vectors.next(rows)
    off = np.sum(error**2, axis=1) > ELSEWHERE * np.sum(vectors.steps(rows) ** 2, axis=1)
    # Not a first row: no end was lost there, and objects that were put into each other part in any direction.
    left: Rows = rows[off & ~np.isin(rows - 1, dataset.episode_ends) & (rows > 0)]
    return left


def _flat(observations: Array) -> Array:
    return np.asarray(observations, np.float64).reshape(len(observations), -1)


_REBUILD = "Rebuild the rows so that actions[i] leads from observations[i] to next_observations[i]."


def _disagreement(
    vectors: Vectors, rows: Rows, result: Resimulated, again: tuple[Array, Resimulated] | None = None
) -> tuple[Array, float]:
    """`[n]`, which rows disagree; and the share of the squared step that the simulator explains in a typical one.

    `again`: which rows were simulated once more, in another way, and what came of them.
    """
    steps = vectors.steps(rows)
    tolerance = TOLERANCE_OF_STEP * steps.std(axis=0) + TOLERANCE_OF_VALUE * vectors.now(rows).std(axis=0) + 1e-6
    simulated = _flat(result.next_observations)
    if again is not None:
        simulated = simulated.copy()
        simulated[again[0]] = _flat(again[1].next_observations)
    error = np.abs(simulated - vectors.next(rows))
    off = np.mean(error > tolerance, axis=1) > OFF_COMPONENTS
    if not off.any():
        return off, 1.0
    scale = deviations(steps, constant=np.inf)
    missed, moved = (np.sum((part[off] / scale) ** 2, axis=1) for part in (error, steps))
    return off, float(1 - np.median(missed / np.maximum(moved, 1e-12)))


def _action_factor(vectors: Vectors, rows: Rows, own: Resimulated, idle: Resimulated) -> float:
    """The factor of the actions, in a typical row, by which the simulator comes nearest to the stored step."""
    then, start = vectors.next(rows), _flat(idle.next_observations)
    scale = deviations(vectors.steps(rows), constant=np.inf)
    effect, wanted = (_flat(own.next_observations) - start) / scale, (then - start) / scale
    size = np.sum(effect**2, axis=1)
    return float(np.median(np.sum(effect * wanted, axis=1)[size > 0] / size[size > 0])) if size.any() else 1.0


def _check_resimulated_rewards(
    dataset: TransitionDataset, resimulate: Resimulate, rows: Rows, result: Resimulated
) -> list[Finding]:
    def wrong(where: Rows, judged: Resimulated, stored: Rows) -> Array:
        rewards, masks = np.asarray(dataset.rewards)[stored], np.asarray(dataset.masks)[stored]
        left: Rows = where[(np.abs(rewards - judged.rewards) > 1e-4) | (masks != judged.masks)]
        return left

    if result.rewards is None or not len(own := wrong(rows, result, rows)):
        return []
    text = f"rewards or masks of {len(own):,} of {len(rows):,} re-simulated transitions are not the environment's"
    for lag, side in SIDES.items():
        inside = rows[(rows + lag >= 0) & (rows + lag < len(dataset))]
        shifted = wrong(inside, resimulate(inside + lag, dataset.actions[inside + lag]), inside)
        if len(shifted) <= 0.1 * len(own):
            text += f", but those of the row {side} them: rewards are one step off"
            break
    advice = "Relabel the rewards with the environment. OGBench before 1.2.0 rewards s' online, and s in its data."
    return [found(dataset, "rewards", "fault", text, advice, rows=own)]


def rows_to_resimulate(dataset: TransitionDataset, count: int) -> Rows:
    """Random rows, a third of them where reward or mask changes, for elsewhere their timing does not show."""
    generator, rewards, masks = np.random.default_rng(0), np.asarray(dataset.rewards), np.asarray(dataset.masks)
    changes = np.flatnonzero((rewards[1:] != rewards[:-1]) | (masks[1:] != masks[:-1]))
    chosen = generator.choice(changes, min(len(changes), count // 6), replace=False)
    chosen = np.union1d(chosen, chosen + 1)
    return np.union1d(chosen, draw(0, len(dataset), count - len(chosen)))


def check_environment(
    dataset: TransitionDataset, env: gymnasium.Env[Any, Any], columns: dict[str, Column]
) -> list[Finding]:
    """Spaces and bounds are those of the environment, and its episodes start where the data has been."""
    findings = []
    for part in ("observation_space", "action_space"):
        own, theirs = getattr(dataset, part), getattr(env, part)
        if not space_fits(own, theirs):
            text = f"the {part} of the dataset is {own}, that of the environment {theirs}"
            advice = "Use data of this environment, or wrap the environment so that both agree."
            findings.append(found(dataset, "environment", "fault", text, advice))
    if findings or not isinstance(env.action_space, Box):
        return findings
    return [*_check_starts(dataset, env, columns), *_check_lengths(dataset, env)]


def _check_starts(
    dataset: TransitionDataset, env: gymnasium.Env[Any, Any], columns: dict[str, Column]
) -> list[Finding]:
    """A component that differs in units, or was normalised, starts outside of what the data covers."""
    starts = [env.reset(seed=seed)[0] for seed in range(RESETS)]
    findings = []
    for name, array in parts(dataset.observations, "observations"):
        key = name.partition("/")[2]
        if is_image(array) or key == "desired_goal":  # Goals are drawn anew.
            continue
        values = np.array([np.asarray(start[key] if key else start, np.float64).reshape(-1) for start in starts])
        low, high = (bound.astype(np.float64) for bound in (columns[name].low, columns[name].high))
        margin = 0.5 * (high - low) + 1e-3
        outside = np.flatnonzero(((values < low - margin) | (values > high + margin)).mean(axis=0) > 0.5)
        if len(outside):
            first = outside[0]
            findings.append(
                found(
                    dataset,
                    "environment",
                    "warning",
                    f"{len(outside)} components of {name} start outside of what the data covers (number {first} at "
                    f"{np.median(values[:, first]):.6g}, in the data from {low[first]:.6g} to {high[first]:.6g})",
                    "Check units, order and normalisation of the observations.",
                    count=len(outside),
                )
            )
    return findings


def _check_lengths(dataset: TransitionDataset, env: gymnasium.Env[Any, Any]) -> list[Finding]:
    limit = None if env.spec is None else env.spec.max_episode_steps
    if limit is None or dataset.episode_lengths.max() <= limit:
        return []
    rows = dataset.episode_starts[dataset.episode_lengths > limit]
    text = f"{len(rows):,} trajectories are longer than the environment's limit of {limit:,} steps"
    return [found(dataset, "environment", "info", text, rows=rows)]
