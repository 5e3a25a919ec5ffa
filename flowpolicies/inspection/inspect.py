"""The inspection of a dataset by all checks; a check is left out if an earlier fault would mislead it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import read
from flowpolicies.inspection import SAMPLE
from flowpolicies.inspection.columns import check_actions, check_observations, check_values, scan
from flowpolicies.inspection.ends import check_ends
from flowpolicies.inspection.environment import check_environment
from flowpolicies.inspection.episodes.last_rows import check_last_rows
from flowpolicies.inspection.episodes.leaps import check_leaps, find_leaps
from flowpolicies.inspection.episodes.relations import check_relations
from flowpolicies.inspection.findings import Finding, Track, is_image, named_arrays, not_judged, sample_rows
from flowpolicies.inspection.flags import check_flags, check_rewards, judges_before_step
from flowpolicies.inspection.images import check_images
from flowpolicies.inspection.jumps import check_jumps, find_jumps
from flowpolicies.inspection.order import check_duplicates, check_order
from flowpolicies.inspection.resets import check_resets, find_resets
from flowpolicies.inspection.simulation.resimulation import (
    Resimulate,
    check_resimulation,
    judges_rewards,
    rows_to_resimulate,
    unexplained,
)
from flowpolicies.inspection.simulation.states import open_state_simulator
from flowpolicies.inspection.singles import check_frozen, check_single_actions
from flowpolicies.inspection.timing import check_action_timing, check_reward_timing, choose_rows
from flowpolicies.inspection.values.interruptions import check_interruptions
from flowpolicies.inspection.values.outliers import check_outliers
from flowpolicies.inspection.values.rounding import check_rounding
from flowpolicies.tree import Array

RESIMULATED = 300
"""Largest number of rows that are re-simulated."""

UNSEEN = (
    "what only a simulator shows: components in another order, with another sign or in other units in all rows; "
    "actions with another sign or scale; rewards, terminations or normalisation that differ between trajectories, "
    "unless an equation shows it"
)
"""What is not judged without a re-simulation."""

MISSED_REWARDS = 0.15
"""Share of the rewards that an environment may miss when it repeats steps from observations.

Rewards of Humanoid and Ant contain contact forces, which depend on more than the state.
"""

BINS = 40
"""Number of bins of a histogram."""


class Histogram(NamedTuple):
    """Number of values in each of several intervals."""

    title: str
    """Name of the values, with their unit if they have one."""
    counts: Array
    """Number of values in each interval, `[N]`."""
    edges: Array
    """Bounds of the intervals, ascending, `[N + 1]`."""


class Inspection(NamedTuple):
    """Results of the inspection of a dataset.

    Examples:
        >>> from flowpolicies import load_dataset
        >>> from flowpolicies.inspection import inspect_dataset
        >>> found = inspect_dataset(load_dataset("pendulum:mixed"))
        >>> faults = [finding.message for finding in found.findings if finding.severity == "fault"]
    """

    name: str
    """Name of the dataset."""
    facts: dict[str, str]
    """Figures of the dataset by title, for people to look at."""
    findings: tuple[Finding, ...]
    """Findings of the checks: faults, then warnings, then infos."""
    histograms: tuple[Histogram, ...]
    """Histograms of lengths, returns, rewards, actions and observations."""
    not_judged: tuple[Finding, ...] = ()
    """Checks that could not be made, whose messages say why; they say nothing about the data."""

    @property
    def num_faults(self) -> int:
        """Number of findings that make training wrong."""
        return sum(finding.severity == "fault" for finding in self.findings)


def inspect_dataset(
    dataset: TransitionDataset,
    *,
    env: gymnasium.Env[Any, Any] | None = None,
    resimulate: Resimulate | None = None,
    sample: int = SAMPLE,
    track: Track = lambda blocks, title: blocks,
) -> Inspection:
    """Checks a dataset for faults that spoil training without an error message.

    The checks of values, order, flags and duplicates read all rows, one block at a time. The regressions read at most
    `sample` rows, and so does the re-simulation.

    Args:
        dataset: the dataset to check, in memory or in files.
        env: an environment whose spaces and first observations are compared with the dataset; None: no comparison.
        resimulate: re-simulation of stored transitions, see `open_resimulator`; None: no re-simulation.
        sample: number of rows for the expensive checks, at least 1.
        track: function that takes the blocks of rows of a check and its title, and returns the blocks; it may show
            the progress.

    Raises:
        ValueError: if `sample` is below 1.
    """
    if sample < 1:
        raise ValueError(f"sample is {sample}; the checks need at least one row.")
    ranges = {key: scan(key, array, track) for key, array in dataset.arrays().items()}
    findings = check_values(dataset, ranges)
    findings += check_observations(dataset, ranges)
    findings += check_images(dataset, ranges)
    findings += check_actions(dataset, ranges["actions"], track)
    findings += check_flags(dataset)
    if env is not None:
        findings += check_environment(dataset, env, ranges)
    given = resimulate
    if not _has(findings, "values"):
        findings += check_outliers(dataset, ranges, track) + check_rounding(dataset)
        resimulate, notes = _simulator(dataset, findings, env, given)
        findings += notes
        findings += [] if resimulate else [not_judged("resimulation", UNSEEN)]
    if not _has(findings, "values", "flags"):
        findings += check_order(dataset, track)
        findings += _check_sample(dataset, findings, resimulate, sample, is_given=given is not None)
        findings += check_frozen(dataset)
    else:
        findings.append(not_judged("trajectories", "wrong values or flags would mislead these checks"))
    findings += check_duplicates(dataset, track)
    return _inspection(dataset, findings, sample)


def _inspection(dataset: TransitionDataset, findings: list[Finding], sample: int) -> Inspection:
    """The results, with the worst findings first."""
    rank = {"fault": 0, "warning": 1, "info": 2, "not judged": 3}
    findings.sort(key=lambda finding: rank[finding.severity])
    made = tuple(finding for finding in findings if finding.severity != "not judged")
    unmade = tuple(finding for finding in findings if finding.severity == "not judged")
    return Inspection(dataset.name, facts(dataset), made, histograms(dataset, sample), unmade)


def _simulator(
    dataset: TransitionDataset,
    findings: Sequence[Finding],
    env: gymnasium.Env[Any, Any] | None,
    resimulate: Resimulate | None,
) -> tuple[Resimulate | None, list[Finding]]:
    """The simulator to use, which may be the environment, and what it cannot judge."""
    if resimulate is not None:
        return resimulate, []
    if env is None:
        return None, [not_judged("resimulation", "no environment and no simulator are known, see --env")]
    if _has(findings, "environment"):
        return None, [not_judged("resimulation", "the data are not those of the environment")]
    try:
        simulator = open_state_simulator(dataset, env)
    except ValueError as error:
        return None, [not_judged("resimulation", str(error))]
    return simulator.resimulate, list(simulator.notes)


def _has(findings: Sequence[Finding], *checks: str) -> bool:
    """Whether one of these checks found a fault."""
    return any(finding.check in checks and finding.severity == "fault" for finding in findings)


def _check_sample(
    dataset: TransitionDataset,
    findings: Sequence[Finding],
    resimulate: Resimulate | None,
    sample: int,
    *,
    is_given: bool,
) -> list[Finding]:
    """Checks that need a usable order of rows, most of them on a sample, and the re-simulation.

    Args:
        dataset: the dataset to check.
        findings: findings so far; faults among them rule out some checks.
        resimulate: re-simulation, or None.
        sample: number of rows.
        is_given: whether the re-simulation is the source's own, which repeats rewards exactly.
    """
    repeated: list[Finding] = []
    if resimulate is not None:
        rows = rows_to_resimulate(dataset, min(sample, RESIMULATED))
        repeated += check_resimulation(dataset, resimulate, rows, least_rewards=0 if is_given else MISSED_REWARDS)
    # The simulator's own rewards are better evidence than a regression.
    known = resimulate is not None and (_has(repeated, "rewards") or judges_rewards(resimulate, dataset))
    more = [] if known else check_rewards(dataset)
    if not _has(findings, "alignment"):
        more += check_ends(dataset) + check_last_rows(dataset)
        if not _has(more, "alignment", "trajectories"):
            more += _check_by_regression(dataset, [*findings, *more], (resimulate, known), sample)
        else:
            more.append(not_judged("alignment", "faults of the ends would mislead the checks of actions and rewards"))
    else:
        more.append(not_judged("trajectories", "the next observations are not those of the next rows"))
    return more + repeated


def _check_by_regression(
    dataset: TransitionDataset,
    findings: Sequence[Finding],
    simulation: tuple[Resimulate | None, bool],
    sample: int,
) -> list[Finding]:
    """Checks of actions, rewards and jumps; faults among the `findings` so far rule out some of them.

    Args:
        dataset: the dataset to check.
        findings: findings so far.
        simulation: the re-simulation, and whether it has judged the rewards.
        sample: number of rows.
    """
    resimulate, rewards_known = simulation
    leaps, simulated = find_leaps(dataset, sample), resimulate is not None
    if resimulate is not None:
        edges = np.union1d(dataset.episode_starts, dataset.episode_ends)
        inner = leaps[~np.isin(leaps, edges)]
        leaps = np.union1d(np.intersect1d(leaps, edges), _unmade(dataset, resimulate, inner))
    more = check_leaps(dataset, leaps, simulated=simulated)
    rows = choose_rows(dataset, sample)
    jumps, resets = find_jumps(dataset, rows, sample, anywhere=simulated), find_resets(dataset, sample)
    if resimulate is not None:
        jumps = _unmade(dataset, resimulate, jumps)
        resets = resets and resets._replace(rows=_unmade(dataset, resimulate, resets.rows))
        resets = resets if resets and len(resets.rows) else None
    if resets is not None:
        jumps = np.union1d(jumps, resets.rows)
    jumps = np.union1d(jumps, leaps)
    rows = rows[~np.isin(rows, jumps[:, None] + np.arange(-1, 2))]  # One jump is enough to spoil a regression.
    more += check_action_timing(dataset, rows)
    if _has(more, "alignment"):
        return more
    more += check_single_actions(dataset, rows, sample)
    if not rewards_known and not _has(findings, "rewards"):
        more += check_reward_timing(dataset, rows)
    if not _has([*findings, *more], "trajectories") and not any(f.check == "trajectories" for f in more):
        if resets is None:
            more += check_jumps(dataset, jumps, simulated=simulated)
        else:
            more += check_resets(dataset, resets, simulated=simulated)
    if not any(f.severity in ("fault", "warning") for f in [*findings, *more] if f.check in ("trajectories", "values")):
        more += check_interruptions(dataset, sample)
        is_clean = not any(finding.severity in ("fault", "warning") for finding in more)
        more += check_relations(dataset) if resimulate is None and is_clean else []
    return more


def _unmade(dataset: TransitionDataset, resimulate: Resimulate, rows: Array) -> Array:
    """Those of the first rows that the simulator does not make."""
    return unexplained(dataset, resimulate, rows[:RESIMULATED]) if len(rows) else rows


def facts(dataset: TransitionDataset) -> dict[str, str]:
    """Figures of a dataset by title, to be looked at before training."""
    arrays, masked = dataset.arrays(), np.asarray(dataset.masks) == 0
    terminated = masked[dataset.episode_ends]
    done = np.add.reduceat(masked, dataset.episode_starts) > 0
    table = {
        "transitions": f"{len(dataset):,}",
        "trajectories": f"{dataset.num_episodes:,}, of {_spread(dataset.episode_lengths)} steps",
        "size": f"{sum(array.nbytes for array in dataset.stored().values()) / 1e6:,.1f} MB",
        **{key: _shape(array) for key, array in arrays.items() if key.startswith("observations")},
        "actions": f"{_shape(dataset.actions)}, bounds {_bounds(dataset)}",
        "rewards": _spread(np.asarray(dataset.rewards)),
        "returns": _spread(dataset.episode_returns),
        "masks of 0": f"{masked.sum():,} of {len(dataset):,} transitions ({masked.mean():.3%})",
        "terminated": f"{terminated.sum():,} of {dataset.num_episodes:,} trajectories; the others were truncated",
    }
    if judges_before_step(dataset):
        table["success"] = f"{done.sum():,} of {dataset.num_episodes:,} trajectories ({done.mean():.1%})"
    return table


def histograms(dataset: TransitionDataset, sample: int) -> tuple[Histogram, ...]:
    """Histograms of all trajectories and rewards, and of the actions and observations of `sample` rows."""
    rows = np.sort(sample_rows(0, len(dataset), sample))
    masked = np.asarray(dataset.masks) == 0
    values = {
        "Length of a trajectory (steps)": dataset.episode_lengths,
        "Return of a trajectory": dataset.episode_returns,
        "Reward": np.asarray(dataset.rewards),
    }
    if masked.any():
        rows_of_0 = np.flatnonzero(masked)
        episodes, first = np.unique(np.searchsorted(dataset.episode_ends, rows_of_0), return_index=True)
        title = "Steps to the goal" if judges_before_step(dataset) else "Steps to the termination"
        values[title] = rows_of_0[first] - dataset.episode_starts[episodes]
    actions = read(dataset.actions, rows).reshape(len(rows), -1)
    values |= {f"Action {i}": actions[:, i] for i in range(min(actions.shape[1], 8))}
    for name, array in named_arrays("Observation", dataset.observations):
        if not is_image(array):
            flat = read(array, rows).reshape(len(rows), -1)
            values |= {f"{name} {i}": flat[:, i] for i in range(min(flat.shape[1], 8))}
    return tuple(Histogram(title, *_count(np.asarray(array, np.float64))) for title, array in values.items())


def _count(values: Array) -> tuple[Array, Array]:
    """Counts and edges of a histogram; if the values are whole numbers from a small range, each has its own bin."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.histogram(values, BINS)
    low, high = float(values.min()), float(values.max())
    largest = max(abs(low), abs(high))
    if largest < 1e9 and high - low < BINS and np.all(values[:1000] % 1 == 0) and np.all(values % 1 == 0):
        return np.histogram(values, np.arange(low - 0.5, high + 1))
    if high - low <= 1e-9 * largest:  # Only rounding differs, and float64 could not tell the edges of bins apart.
        return np.histogram(values, BINS, (low - max(0.5, 1e-3 * largest), high + max(0.5, 1e-3 * largest)))
    return np.histogram(values, BINS)


def _spread(values: Array) -> str:
    if values.min() == values.max():
        return f"{values.min():.6g}"
    return f"{values.min():.6g} to {values.max():.6g} (mean {values.mean(dtype=np.float64):.6g})"


def _shape(array: Array) -> str:
    return f"{' x '.join(str(size) for size in array.shape[1:]) or '1'} {array.dtype}"


def _bounds(dataset: TransitionDataset) -> str:
    low, high = dataset.action_space.low, dataset.action_space.high
    return f"{low.min():.6g} to {high.max():.6g}"
