"""Checks against the environment: spaces, first observations, and re-simulation of stored transitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.selection import SELECTIONS
from flowpolicies.data.sources import FOR_ANY_SOURCE, SOURCES, split_options
from flowpolicies.inspection.columns import Ranges
from flowpolicies.inspection.findings import (
    OGBENCH_REWARDS,
    SIDES,
    Finding,
    Rows,
    Vectors,
    found,
    is_image,
    is_quantity,
    named_arrays,
    sample_rows,
)
from flowpolicies.inspection.regression import deviations
from flowpolicies.spaces.layout import channels_first_space, space_fits
from flowpolicies.tree import Array, leaf_at, leaves

RESETS = 20
"""Number of resets of the environment, whose first observations are compared with the data."""

DISAGREE = 0.05
"""Share of the re-simulated rows that may disagree with the data.

Resting contacts are chaotic: two versions of a simulator differ there, and so does one that starts from float32 states.
"""

OFF_COMPONENTS = 0.2
"""Share of its components that must be off for a row to disagree.

A single component may flip, such as an angle that is measured on a tumbling object.
"""

LEAST_SHIFTED = 5
"""Smallest number of disagreeing rows that are tried with the actions of the neighbouring rows."""

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


def check_resimulation(dataset: TransitionDataset, resimulate: Resimulate, rows: Rows) -> list[Finding]:
    """Reports how many of `rows` disagree with the simulator, and whether shifted or scaled actions explain it."""
    vectors, rows = Vectors(dataset), np.sort(rows)
    result = resimulate(rows, dataset.actions[rows])
    rewards = _check_resimulated_rewards(dataset, resimulate, rows, result)
    if any(is_image(array) for array in leaves(dataset.observations)):
        return rewards
    off, fit = _disagreement(vectors, rows, result)
    text = f"of {len(rows):,} re-simulated transitions, {off.mean():.1%} disagree with the stored next observation"
    wrong = rows[off]
    if len(wrong) >= LEAST_SHIFTED:  # A few rows are enough: they may be those of one trajectory.
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
        advice = "Store the actions that were executed, and pass the action_space= that gives their bounds."
        return [found(dataset, "resimulation", "fault", text, advice, rows=wrong), *rewards]
    if fit > 0.95:
        text += ", but only slightly"
        advice = "Another version of the simulator may be the reason: compare with the versions in the provenance."
        return [found(dataset, "resimulation", "warning", text, advice, rows=wrong), *rewards]
    return [found(dataset, "resimulation", "fault", text, _REBUILD, rows=wrong), *rewards]


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


def _disagreement(
    vectors: Vectors, rows: Rows, result: Resimulated, again: tuple[Array, Resimulated] | None = None
) -> tuple[Array, float]:
    """Compares simulated next observations with the stored ones.

    Args:
        vectors: the dataset.
        rows: the simulated rows, `[n]`.
        result: the results of the simulation.
        again: which of the rows `[n]` bool were simulated a second time with other actions, and the results.

    Returns:
        Which rows disagree, `[n]`, and the share of the squared step that the simulator explains, as the median of
        those rows.
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


def _check_resimulated_rewards(
    dataset: TransitionDataset, resimulate: Resimulate, rows: Rows, result: Resimulated
) -> list[Finding]:
    """Reports rewards and masks that differ from the environment's, and whether those of a neighbouring row fit."""

    def wrong(where: Rows, judged: Resimulated, stored: Rows) -> Array:
        rewards, masks = np.asarray(dataset.rewards)[stored], np.asarray(dataset.masks)[stored]
        left: Rows = where[(np.abs(rewards - judged.rewards) > 1e-4) | (masks != judged.masks)]
        return left

    if result.rewards is None or not len(own := wrong(rows, result, rows)):
        return []
    text = f"rewards or masks of {len(own):,} of {len(rows):,} re-simulated transitions differ from the environment's"
    for lag, side in SIDES.items():
        inside = rows[(rows + lag >= 0) & (rows + lag < len(dataset))]
        shifted = wrong(inside, resimulate(inside + lag, dataset.actions[inside + lag]), inside)
        if len(shifted) <= 0.1 * len(own):
            text += f", but equal those of the row {side} them: rewards are one step off"
            break
    advice = f"Compute the rewards again with the environment. {OGBENCH_REWARDS}"
    return [found(dataset, "rewards", "fault", text, advice, rows=own)]


def rows_to_resimulate(dataset: TransitionDataset, count: int) -> Rows:
    """Random rows, ascending; a third of them are where reward or mask changes, because only there a shift shows."""
    generator, rewards, masks = np.random.default_rng(0), np.asarray(dataset.rewards), np.asarray(dataset.masks)
    changes = np.flatnonzero((rewards[1:] != rewards[:-1]) | (masks[1:] != masks[:-1]))
    chosen = generator.choice(changes, min(len(changes), count // 6), replace=False)
    chosen = np.union1d(chosen, chosen + 1)
    return np.union1d(chosen, sample_rows(0, len(dataset), count - len(chosen)))


def check_environment(
    dataset: TransitionDataset, env: gymnasium.Env[Any, Any], ranges: dict[str, Ranges]
) -> list[Finding]:
    """Reports spaces that differ from the environment's, and first observations outside of the data.

    Args:
        dataset: the dataset to check.
        env: the environment that it is to be used with.
        ranges: ranges of the dataset's columns.
    """
    findings = []
    for part in ("observation_space", "action_space"):
        own, theirs = getattr(dataset, part), channels_first_space(getattr(env, part))
        if not space_fits(own, theirs):
            text = f"the {part} of the dataset is {own}, but that of the environment is {theirs}"
            advice = "Use data of this environment, or wrap the environment so that both agree."
            findings.append(found(dataset, "environment", "fault", text, advice))
    if findings or not isinstance(env.action_space, Box):
        return findings
    return [*_check_starts(dataset, env, ranges), *_check_lengths(dataset, env)]


def _check_starts(dataset: TransitionDataset, env: gymnasium.Env[Any, Any], ranges: dict[str, Ranges]) -> list[Finding]:
    """Reports components that start outside of the data's range, because they have other units or were normalised."""
    starts = [env.reset(seed=seed)[0] for seed in range(RESETS)]
    findings = []
    for name, array in named_arrays("observations", dataset.observations):
        key = name.partition("/")[2] or None
        if not is_quantity(array) or key == "desired_goal":  # Each reset draws a new goal.
            continue
        values = np.array([np.asarray(leaf_at(start, key), np.float64).reshape(-1) for start in starts])
        low, high = (bound.astype(np.float64) for bound in (ranges[name].low, ranges[name].high))
        margin = 0.5 * (high - low) + 1e-3
        outside = np.flatnonzero(((values < low - margin) | (values > high + margin)).mean(axis=0) > 0.5)
        if len(outside):
            first = outside[0]
            findings.append(
                found(
                    dataset,
                    "environment",
                    "warning",
                    f"{len(outside)} of {len(low)} components of {name} start outside of the data's range when the "
                    f"environment is reset (component {first} starts at {np.median(values[:, first]):.6g}, and ranges "
                    f"from {low[first]:.6g} to {high[first]:.6g} in the data)",
                    "Check units, order and normalisation of the observations.",
                    count=len(outside),
                )
            )
    return findings


def _check_lengths(dataset: TransitionDataset, env: gymnasium.Env[Any, Any]) -> list[Finding]:
    """Reports trajectories that are longer than the environment's time limit."""
    limit = None if env.spec is None else env.spec.max_episode_steps
    if limit is None or dataset.episode_lengths.max() <= limit:
        return []
    rows = dataset.episode_starts[dataset.episode_lengths > limit]
    text = f"{len(rows):,} trajectories are longer than the environment's limit of {limit:,} steps"
    return [found(dataset, "environment", "info", text, rows=rows)]
