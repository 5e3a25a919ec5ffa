"""Checks of the order of rows: next observations, missing ends of trajectories, and rows that are stored twice."""

from __future__ import annotations

import hashlib

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import blocks, read
from flowpolicies.inspection.episodes.copies import check_near_copies
from flowpolicies.inspection.findings import (
    SPLIT_EPISODES,
    Finding,
    Rows,
    Track,
    found,
    listed,
    observation_pairs,
    sample_rows,
)
from flowpolicies.tree import Array, leaves

CLOSE = 1e-5
"""Relative difference up to which two float32 numbers count as equal, because rounding can cause it."""

FEW = 0.2
"""Share of the rows inside trajectories whose next observation may differ from the next row's observation.

Up to it the finding is that ends of trajectories are missing, and beyond it that the rows are in another order.
"""

OFFSETS = (0, 2, 3, -1, 4, 8, 16, 32)
"""Distances in rows at which the next observation is looked for; 1 is right, k > 1 may be k interleaved streams."""


def check_order(dataset: TransitionDataset, track: Track) -> list[Finding]:
    """Reports rows inside trajectories whose next observation is not the observation of the next row."""
    wrong, inner = breaks(dataset, track), len(dataset) - dataset.num_episodes
    if not len(wrong):
        return []
    if _are_twice(dataset, wrong):
        text = f"rows that are stored twice in succession: about {len(wrong):,}"
        advice = (
            "Drop the copies: action chunks and n-step returns need rows whose next observation is the observation of "
            "the next row."
        )
        return [found(dataset, "duplicates", "fault", text, advice, rows=wrong)]
    offset = _true_offset(dataset)
    if offset is not None:
        return [found(dataset, "alignment", "fault", *offset, rows=wrong)]
    text = f"next_observations differ from the observations of the next row in {len(wrong):,} of {inner:,} rows"
    if len(wrong) > FEW * inner:
        if _is_rounding(dataset, wrong):
            advice = "Check that both were normalised alike and stored with the same precision."
            return [found(dataset, "alignment", "warning", f"{text}, but only slightly", advice, rows=wrong)]
        advice = (
            "Either the rows are not in the order of time, or the two arrays do not belong together. Build the rows "
            "again from the episodes. If the order is lost, set all terminals to 1, and use neither action chunks nor "
            "n-step returns."
        )
        return [found(dataset, "alignment", "fault", text, advice, rows=wrong)]
    advice = (
        "Set terminals to 1 there (and masks to 0 unless it was a time limit), otherwise action chunks and n-step "
        "returns cross from one trajectory into the next."
    )
    message = f"trajectories are joined: {text}, so that a trajectory ends there, but terminals are 0"
    return [found(dataset, "trajectories", "fault", message, advice, rows=wrong)]


def _are_twice(dataset: TransitionDataset, wrong: Rows) -> bool:
    """Whether most of the rows `wrong` are followed by a copy of themselves."""
    rows = wrong[:: max(1, len(wrong) // 2000)]
    same = ~differ(read(dataset.actions, rows), read(dataset.actions, rows + 1))
    for array in [*leaves(dataset.observations), *leaves(dataset.next_observations)]:
        same &= ~differ(read(array, rows), read(array, rows + 1))
    return bool(same.mean() > 0.9)


def breaks(dataset: TransitionDataset, track: Track) -> Rows:
    """Rows inside trajectories whose next observation is not the observation of the next row."""
    ends = np.asarray(dataset.terminals) == 1
    wrong = np.zeros(len(dataset), bool)
    for name, (now, then) in observation_pairs(dataset).items():
        for block in track(blocks([now, then]), f"{name}: order"):
            stop = min(block.stop, len(dataset) - 1)
            here = slice(block.start, stop)
            wrong[here] |= differ(read(then, here), read(now, slice(block.start + 1, stop + 1)))
    return np.flatnonzero(wrong & ~ends)


def differ(left: Array, right: Array) -> Array:
    """Whether rows differ by more than rounding, `[n]`. NaN do not differ; they are reported by `check_values`."""
    if not len(left):
        return np.zeros(0, bool)
    if left.dtype == np.uint8:
        different = left != right
    else:
        with np.errstate(invalid="ignore"):  # The difference of two infinities is NaN.
            different = np.abs(left - right) > CLOSE * np.maximum(np.abs(left), 0.1)
    return np.asarray(different.reshape(len(left), -1).any(axis=1))


def _true_offset(dataset: TransitionDataset) -> tuple[str, str] | None:
    """Message and advice, if the next observation is a fixed number of rows away, or one that grows; else None."""
    rows = sample_rows(0, len(dataset) - 1, 4000)
    rows = rows[np.asarray(dataset.terminals[rows]) != 1]
    matches = {offset: _match(dataset, rows, offset) for offset in OFFSETS}
    best = max(matches, key=lambda offset: matches[offset])
    early = sample_rows(int(dataset.episode_ends[0]) + 1, int(dataset.episode_ends[:21][-1]), 4000)
    drifts = {sign: _match(dataset, early, 1 + sign * np.searchsorted(dataset.episode_ends, early)) for sign in (1, -1)}
    drift = max(drifts, key=lambda sign: drifts[sign])
    if drifts[drift] > max(0.5, 1.5 * matches[best]):
        return (
            "observations and next_observations drift apart, by one more row in each trajectory",
            f"T+1 observations of each episode were concatenated beside T actions. {SPLIT_EPISODES}",
        )
    if matches[best] < 0.9:
        return None
    rows_away = f"the observation {abs(best)} rows {'later' if best > 0 else 'earlier'}"
    where = "the observation of the same row" if best == 0 else rows_away
    streams = f", or the rows of {best} environments are interleaved" if best > 1 else ""
    return (
        f"next_observations are shifted: they hold {where} instead of the next row's{streams}",
        f"Build the rows again from the episodes. {SPLIT_EPISODES}",
    )


def _match(dataset: TransitionDataset, rows: Rows, offset: int | Array) -> float:
    """Share of `rows` whose next observation is the observation `offset` rows later, but not that of the next row."""
    other = rows + offset
    inside = (other >= 0) & (other < len(dataset)) & (rows + 1 < len(dataset))
    rows, other = rows[inside], other[inside]
    if len(rows) < 5:
        return 0.0
    equal, trivial = np.ones(len(rows), bool), np.ones(len(rows), bool)
    for now, then in observation_pairs(dataset).values():
        following = read(then, rows)
        equal &= ~differ(following, read(now, other))
        trivial &= ~differ(following, read(now, rows + 1))
    telling = ~trivial
    return float(equal[telling].mean()) if telling.sum() >= 5 else 0.0


def _is_rounding(dataset: TransitionDataset, wrong: Rows) -> bool:
    """Whether the differences in the rows `wrong` are small in comparison with a step."""
    rows = wrong[:2000]
    for now, then in observation_pairs(dataset).values():
        stored, here, following = (np.asarray(array, np.float64) for array in (then[rows], now[rows], now[rows + 1]))
        if np.median(np.abs(stored - following)) > 0.1 * np.median(np.abs(following - here)):
            return False
    return True


def check_duplicates(dataset: TransitionDataset, track: Track) -> list[Finding]:
    """Reports trajectories of several steps that are copies of another one, exactly or nearly."""
    twice = exact_copies(dataset, track)
    copies = np.array([copy for _, copy in twice], np.intp)
    near = check_near_copies(dataset, copies, track)
    if not twice:
        return near
    rows = dataset.episode_starts[copies]
    pairs = [f"{second} of {first}" for first, second in twice]
    message = f"trajectories that are exact copies of another one: {len(twice):,} ({listed(pairs, 5)})"
    advice = "Drop the copies: they count twice in training, and a validation split may contain training data."
    return [found(dataset, "duplicates", "fault", message, advice, rows=rows), *near]


def exact_copies(dataset: TransitionDataset, track: Track) -> list[tuple[int, int]]:
    """Numbers of trajectories of several steps with equal bytes: the first one and the copy."""
    starts = dataset.episode_starts
    arrays = [*leaves(dataset.observations), dataset.actions]
    seen: dict[bytes, int] = {}
    twice: list[tuple[int, int]] = []
    spans = [slice(int(start), int(end) + 1) for start, end in zip(starts, dataset.episode_ends, strict=True)]
    for episode, span in enumerate(track(spans, "duplicates")):
        if span.stop - span.start < 2:
            continue
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(np.ascontiguousarray(read(array, span)).data)
        first = seen.setdefault(digest.digest(), episode)
        if first != episode:
            twice.append((first, episode))
    return twice
