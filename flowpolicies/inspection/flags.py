"""Checks of masks and terminals, and of rewards that mark terminations."""

from __future__ import annotations

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.inspection.episodes.last_rows import check_limits
from flowpolicies.inspection.findings import OGBENCH_REWARDS, SIDES, Finding, Vectors, found
from flowpolicies.tree import Array

LEAST_EPISODES = 3
"""Number of trajectories below which nothing is concluded from equal lengths."""


def check_flags(dataset: TransitionDataset) -> list[Finding]:
    """Reports masks that are not 1 - termination, and terminals that are not the ends of trajectories."""
    masked, ends = np.asarray(dataset.masks) == 0, np.asarray(dataset.terminals) == 1
    for check in (_values, _exchanged, _inverted_terminals, _inverted_masks):
        finding = check(dataset, masked, ends)
        if finding is not None:
            return [finding]
    return [*_inside(dataset, masked, ends), *_time_limits(dataset, masked)]


def _values(dataset: TransitionDataset, masked: Array, ends: Array) -> Finding | None:
    """A finding about values other than 0 and 1, or None."""
    for key in ("masks", "terminals"):
        array = np.asarray(getattr(dataset, key))
        wrong = np.flatnonzero((array != 0) & (array != 1))
        if len(wrong):
            text = f"{key} are neither 0 nor 1 in {len(wrong):,} transitions"
            return found(dataset, "flags", "fault", text, f"Set {key} to 0 or 1 in every row.", rows=wrong)
    return None


def _exchanged(dataset: TransitionDataset, masked: Array, ends: Array) -> Finding | None:
    """A finding if most masks are 0 and most terminals are 1, or None."""
    if masked.mean() <= 0.5 or ends.mean() <= 0.5:
        return None
    if masked.all() and ends.all():
        text = "every transition is a trajectory of its own that terminates, so that no target bootstraps"
        return found(dataset, "flags", "warning", text, "This is right for bandits; otherwise check them.")
    return found(
        dataset,
        "flags",
        "fault",
        f"masks and terminals are exchanged: {masked.mean():.1%} of the masks are 0, {ends.mean():.1%} of the "
        "terminals are 1",
        "Exchange them: a mask is 1 - termination and mostly 1, a terminal marks the last transition of a trajectory "
        "and is mostly 0.",
        rows=np.flatnonzero(masked & ends),
    )


def _inverted_terminals(dataset: TransitionDataset, masked: Array, ends: Array) -> Finding | None:
    """A finding if most terminals are 1, or None; it is a fault if the next rows continue the trajectory."""
    if ends.mean() <= 0.5 or len(dataset) < 10:
        return None
    vectors, rows = Vectors(dataset), np.flatnonzero(ends[:-1])[:2000]
    continues = (vectors.next(rows) == vectors.now(rows + 1)).all(axis=1) if vectors.width else np.zeros(1)
    if continues.mean() > 0.5:
        return found(
            dataset,
            "flags",
            "fault",
            f"terminals are 1 in {ends.mean():.1%} of the transitions, although the next row continues the trajectory",
            "A terminal is 1 on the last transition of a trajectory and 0 on all others; these look inverted.",
            rows=rows,
            count=int(ends.sum()),
        )
    text = f"{ends.mean():.1%} of the transitions are trajectories of one step"
    advice = "This is right for transitions without an order, which allow neither action chunks nor n-step returns."
    return found(dataset, "flags", "warning", text, advice, count=int(ends.sum()))


def _inverted_masks(dataset: TransitionDataset, masked: Array, ends: Array) -> Finding | None:
    """A finding if most masks are 0, or None; it is a fault if the mask is 1 only at ends of trajectories."""
    if masked.mean() <= 0.5:
        return None
    only_at_ends = bool(ends[~masked].all())
    return found(
        dataset,
        "flags",
        "fault" if only_at_ends else "warning",
        f"masks are 0 in {masked.mean():.1%} of the transitions, so that hardly any target bootstraps",
        "A mask is 1 - termination"
        + ("; these look inverted." if only_at_ends else ". Check that these are not inverted."),
        rows=np.flatnonzero(masked),
    )


def judges_before_step(dataset: TransitionDataset) -> bool:
    """Whether the dataset's source says that masks depend on the state before the step, as OGBench's do."""
    return "before the step" in str(dataset.provenance.get("reward_timing", ""))


def _has_goals(dataset: TransitionDataset) -> bool:
    """Whether the dataset's source says that each trajectory's last state is its goal, so that all terminate."""
    return "goals" in dataset.provenance


def _inside(dataset: TransitionDataset, masked: Array, ends: Array) -> list[Finding]:
    """Reports masks of 0 inside trajectories, or that there is none at all."""
    rows = np.flatnonzero(masked & ~ends)
    if not masked.any():
        text = "no transition terminates (masks are 1 everywhere)"
        advice = "This is right for tasks without an end, and if no trajectory reaches its goal."
        return [found(dataset, "flags", "info", text, advice)]
    if not len(rows):
        return []
    text = f"masks are 0 in {len(rows):,} transitions after which the trajectory continues"
    if judges_before_step(dataset):
        text += ": the goal was reached before the end of the trajectory, as in all OGBench data"
        return [found(dataset, "flags", "info", text, rows=rows)]
    advice = (
        "If the episode ended there, set terminals to 1 as well, otherwise n-step returns and action chunks cross that "
        "end. If trajectories were recorded beyond terminal states, as in relabelled data, this is right."
    )
    return [found(dataset, "flags", "warning", text, advice, rows=rows)]


def _time_limits(dataset: TransitionDataset, masked: Array) -> list[Finding]:
    """Reports trajectories of the greatest length that all terminate, probably at a time limit."""
    lengths = dataset.episode_lengths
    terminated = masked[dataset.episode_ends]
    if len(lengths) < LEAST_EPISODES or lengths.max() < 2 or judges_before_step(dataset) or _has_goals(dataset):
        return []
    last = lengths == lengths.max()
    if last.sum() < LEAST_EPISODES or not terminated[last].all() or last.mean() < 0.5:
        return check_limits(dataset)
    text = (
        f"all {last.sum():,} trajectories of the greatest length, {lengths.max():,} steps, terminate in their last step"
    )
    advice = (
        "This looks like a time limit that was recorded as a termination. Keep terminals at 1 there and set masks to "
        "1, otherwise the value function learns that time limits are terminal states."
    )
    return [found(dataset, "flags", "warning", text, advice, rows=dataset.episode_ends[last])]


def check_rewards(dataset: TransitionDataset) -> list[Finding]:
    """Reports rewards that are all equal, and best rewards that are one row away from the masks of 0."""
    rewards, masked = np.asarray(dataset.rewards), np.asarray(dataset.masks) == 0
    if len(rewards) > 1 and rewards.min() == rewards.max():
        text = f"all rewards are {rewards[0]:.6g}"
        advice = "Nothing can be learned from equal rewards. Check that they were recorded, or use more or other data."
        return [found(dataset, "rewards", "warning", text, advice)]
    best = rewards == rewards.max()
    if not 3 <= masked.sum() <= 0.5 * len(masked):
        return []
    apart = {lag: _disagreements(best, masked, lag) for lag in (-1, 0, 1)}
    lag = min(apart, key=lambda lag: apart[lag])
    if apart[0] < 3 or apart[lag] > 0.1 * apart[0]:
        return []
    rows = np.flatnonzero(best != masked)
    return [
        found(
            dataset,
            "rewards",
            "fault",
            f"rewards are one step off: the best one, {rewards.max():.6g}, is in the row {SIDES[lag]} each mask of 0 "
            f"({apart[0]:,} rows disagree, {apart[lag]:,} after a shift)",
            f"Build rewards and masks from the same steps. {OGBENCH_REWARDS}",
            rows=rows,
            count=apart[0],
        )
    ]


def _disagreements(best: Array, masked: Array, lag: int) -> int:
    """Number of rows where either the mask is 0 or the reward `lag` rows later is the best one, but not both."""
    inner = slice(1, len(best) - 1)
    return int(np.sum(np.roll(best, -lag)[inner] != masked[inner]))
