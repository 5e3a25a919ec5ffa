"""Checks of masks, terminals and rewards: what ends, what terminates, and whether rewards belong to the same steps."""

from __future__ import annotations

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.inspection.findings import SIDES, Array, Finding, Vectors, found

LEAST_EPISODES = 3
"""Trajectories below which equal lengths say nothing."""


def check_flags(dataset: TransitionDataset) -> list[Finding]:
    """Masks are 1 - termination and terminals the ends of trajectories, neither inverted nor swapped."""
    masked, ends = np.asarray(dataset.masks) == 0, np.asarray(dataset.terminals) == 1
    for check in (_values, _exchanged, _inverted_terminals, _inverted_masks):
        finding = check(dataset, masked, ends)
        if finding is not None:
            return [finding]
    return [*_inside(dataset, masked, ends), *_time_limits(dataset, masked)]


def _values(dataset: TransitionDataset, masked: Array, ends: Array) -> Finding | None:
    for key in ("masks", "terminals"):
        array = np.asarray(getattr(dataset, key))
        wrong = np.flatnonzero((array != 0) & (array != 1))
        if len(wrong):
            text = f"{key} are neither 0 nor 1 in {len(wrong):,} transitions"
            return found(dataset, "flags", "fault", text, "A flag is 0 or 1.", rows=wrong)
    return None


def _exchanged(dataset: TransitionDataset, masked: Array, ends: Array) -> Finding | None:
    if masked.mean() <= 0.5 or ends.mean() <= 0.5:
        return None
    if masked.all() and ends.all():
        text = "every transition is a trajectory of its own that terminates: there is nothing to bootstrap"
        return found(dataset, "flags", "warning", text, "Right for bandits; else check masks and terminals.")
    return found(
        dataset,
        "flags",
        "fault",
        f"masks and terminals are exchanged: {masked.mean():.1%} of the masks are 0, {ends.mean():.1%} of the "
        "terminals are 1",
        "masks are 1 - termination (mostly 1), terminals mark last transitions (mostly 0).",
        rows=np.flatnonzero(masked & ends),
    )


def _inverted_terminals(dataset: TransitionDataset, masked: Array, ends: Array) -> Finding | None:
    if ends.mean() <= 0.5 or len(dataset) < 10:
        return None
    vectors, rows = Vectors(dataset), np.flatnonzero(ends[:-1])[:2000]
    goes_on = (vectors.next(rows) == vectors.now(rows + 1)).all(axis=1) if vectors.width else np.zeros(1)
    if goes_on.mean() > 0.5:
        return found(
            dataset,
            "flags",
            "fault",
            f"terminals are 1 in {ends.mean():.1%} of the transitions, though the next row goes on from there",
            "A terminal is 1 on the last transition of a trajectory and 0 on all others: they look inverted.",
            rows=rows,
            count=int(ends.sum()),
        )
    text = f"{ends.mean():.1%} of the transitions are trajectories of one step"
    advice = "Right for unordered transitions; chunks and n-step returns then have nothing to work with."
    return found(dataset, "flags", "warning", text, advice, count=int(ends.sum()))


def _inverted_masks(dataset: TransitionDataset, masked: Array, ends: Array) -> Finding | None:
    if masked.mean() <= 0.5:
        return None
    only_at_ends = bool(ends[~masked].all())
    return found(
        dataset,
        "flags",
        "fault" if only_at_ends else "warning",
        f"masks are 0 in {masked.mean():.1%} of the transitions, so that hardly any target bootstraps",
        "A mask is 1 - termination. "
        + ("They look inverted." if only_at_ends else "Check that they are not inverted."),
        rows=np.flatnonzero(masked),
    )


def judges_before_step(dataset: TransitionDataset) -> bool:
    """Whether the source says that masks judge the state before the step, as OGBench's do."""
    return "before the step" in str(dataset.provenance.get("reward_timing", ""))


def _has_goals(dataset: TransitionDataset) -> bool:
    """Whether the source says that the last state of each trajectory is its goal, so that all terminate."""
    return "goals" in dataset.provenance


def _inside(dataset: TransitionDataset, masked: Array, ends: Array) -> list[Finding]:
    rows = np.flatnonzero(masked & ~ends)
    if not masked.any():
        text = "no transition terminates (masks are 1 everywhere)"
        return [
            found(dataset, "flags", "info", text, "Right for endless tasks, and if no trajectory reaches its goal.")
        ]
    if not len(rows):
        return []
    text = f"masks are 0 in {len(rows):,} transitions after which the trajectory goes on"
    if judges_before_step(dataset):
        text += ": the goal was reached on the way, as in all OGBench data"
        return [found(dataset, "flags", "info", text, rows=rows)]
    advice = (
        "If the episode ended there, set terminals to 1 as well; n-step returns and chunks would run across. If states "
        "are terminal on the way, as in relabelled data, all is well."
    )
    return [found(dataset, "flags", "warning", text, advice, rows=rows)]


def _time_limits(dataset: TransitionDataset, masked: Array) -> list[Finding]:
    lengths = dataset.episode_lengths
    terminated = masked[dataset.episode_ends]
    if len(lengths) < LEAST_EPISODES or lengths.max() < 2 or judges_before_step(dataset) or _has_goals(dataset):
        return []
    last = lengths == lengths.max()
    if last.sum() < LEAST_EPISODES or not terminated[last].all() or last.mean() < 0.5:
        return []
    text = (
        f"all {last.sum():,} trajectories of the greatest length, {lengths.max():,} steps, terminate in their last one"
    )
    advice = (
        "That looks like a time limit that was recorded as a termination. Keep terminals at 1 there and set masks to "
        "1, or values will take the clock for death."
    )
    return [found(dataset, "flags", "warning", text, advice, rows=dataset.episode_ends[last])]


def check_rewards(dataset: TransitionDataset) -> list[Finding]:
    """Rewards differ, and where the best one marks the terminal state, it does so in the same row."""
    rewards, masked = np.asarray(dataset.rewards), np.asarray(dataset.masks) == 0
    if len(rewards) > 1 and rewards.min() == rewards.max():
        text = f"all rewards are {rewards[0]:.6g}"
        advice = "There is nothing to learn from: more data, another task, or a recording that lost them."
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
            f"rewards are one step off: the best one, {rewards.max():.6g}, stands in the row {SIDES[lag]} each mask of "
            f"0 ({apart[0]:,} rows disagree, {apart[lag]:,} after a shift)",
            "Rebuild rewards and masks from the same steps. OGBench before 1.2.0 rewards s' in its environments and s "
            "in its data.",
            rows=rows,
            count=apart[0],
        )
    ]


def _disagreements(best: Array, masked: Array, lag: int) -> int:
    """In how many rows one of "best reward, `lag` rows on" and "mask is 0" holds without the other."""
    inner = slice(1, len(best) - 1)
    return int(np.sum(np.roll(best, -lag)[inner] != masked[inner]))
