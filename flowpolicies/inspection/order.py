"""Checks of the order of rows: whether s' is the next row's s, where trajectories end, whether one is there twice."""

from __future__ import annotations

import hashlib

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import blocks, read
from flowpolicies.inspection.findings import Array, Finding, Rows, Track, draw, found, parts

CLOSE = 1e-5
"""Relative difference that two ways to the same float32 number can make."""
FEW = 0.2
"""Share of rows up to which s' that is not the next s means missing ends of trajectories, and beyond it another order
of the rows."""
OFFSETS = (0, 2, 3, -1, 4, 8, 16, 32)
"""Where else the next observation may stand, in rows from its own; 1 is right, more may be interleaved streams."""


def check_order(dataset: TransitionDataset, track: Track) -> list[Finding]:
    """Inside a trajectory next_observations[i] is observations[i + 1]."""
    wrong, inner = breaks(dataset, track), len(dataset) - dataset.num_episodes
    if not len(wrong):
        return []
    if _are_twice(dataset, wrong):
        text = f"rows are there twice, one after the other: about {len(wrong):,}"
        advice = "Drop the copies: s' of a row must be the s of the next one, for chunks and n-step returns."
        return [found(dataset, "duplicates", "fault", text, advice, rows=wrong)]
    offset = _true_offset(dataset)
    if offset is not None:
        return [found(dataset, "alignment", "fault", *offset, rows=wrong)]
    text = f"next_observations differ from the observations of the next row in {len(wrong):,} of {inner:,} rows"
    if len(wrong) > FEW * inner:
        if _is_rounding(dataset, wrong):
            advice = "Check that both were normalised alike and stored with the same precision."
            return [found(dataset, "alignment", "warning", f"{text}, by little", advice, rows=wrong)]
        advice = (
            "The rows are in no order of time, or the two arrays do not belong together. Rebuild s, a, s' from the "
            "episodes; without order, mark every row as a terminal and use neither chunks nor n-step returns."
        )
        return [found(dataset, "alignment", "fault", text, advice, rows=wrong)]
    advice = (
        "Set terminals to 1 there (and masks to 0 if it was no time limit); chunks and n-step returns would run "
        "across, from one trajectory into another."
    )
    message = f"trajectories are joined: {text}, so that one ends there, but terminals are 0"
    return [found(dataset, "trajectories", "fault", message, advice, rows=wrong)]


def _are_twice(dataset: TransitionDataset, wrong: Rows) -> bool:
    """Whether most of the rows that lead elsewhere are followed by a copy."""
    rows = wrong[:: max(1, len(wrong) // 2000)]
    same = ~differ(read(dataset.actions, rows), read(dataset.actions, rows + 1))
    for observations in (dataset.observations, dataset.next_observations):
        for _, array in parts(observations, ""):
            same &= ~differ(read(array, rows), read(array, rows + 1))
    return bool(same.mean() > 0.9)


def breaks(dataset: TransitionDataset, track: Track) -> Rows:
    """Rows inside trajectories whose next observation is not the observation of the next row."""
    ends = np.asarray(dataset.terminals) == 1
    wrong = np.zeros(len(dataset), bool)
    after = dict(parts(dataset.next_observations, "observations"))
    for name, now in parts(dataset.observations, "observations"):
        for block in track(blocks([now, after[name]]), f"{name}: order"):
            stop = min(block.stop, len(dataset) - 1)
            here = slice(block.start, stop)
            wrong[here] |= differ(read(after[name], here), read(now, slice(block.start + 1, stop + 1)))
    return np.flatnonzero(wrong & ~ends)


def differ(left: Array, right: Array) -> Array:
    """`[n]`, whether rows differ by more than rounding; NaN are another check's matter."""
    if not len(left):
        return np.zeros(0, bool)
    if left.dtype == np.uint8:
        different = left != right
    else:
        with np.errstate(invalid="ignore"):  # Of infinities.
            different = np.abs(left - right) > CLOSE * np.maximum(np.abs(left), 0.1)
    return np.asarray(different.reshape(len(left), -1).any(axis=1))


def _true_offset(dataset: TransitionDataset) -> tuple[str, str] | None:
    """Message and advice, if the next observation stands a fixed number of rows away, or one that grows."""
    rows = draw(0, len(dataset) - 1, 4000)
    rows = rows[np.asarray(dataset.terminals[rows]) != 1]
    matches = {offset: _match(dataset, rows, offset) for offset in OFFSETS}
    best = max(matches, key=lambda offset: matches[offset])
    early = draw(int(dataset.episode_ends[0]) + 1, int(dataset.episode_ends[:21][-1]), 4000)
    drifts = {sign: _match(dataset, early, 1 + sign * np.searchsorted(dataset.episode_ends, early)) for sign in (1, -1)}
    drift = max(drifts, key=lambda sign: drifts[sign])
    if drifts[drift] > max(0.5, 1.5 * matches[best]):
        return (
            "observations and next_observations drift apart, by one more row in each trajectory",
            "T+1 observations of an episode were concatenated beside T actions. Cut every episode first: "
            "observations[:-1] and next_observations[1:], or TransitionDataset.from_episodes.",
        )
    if matches[best] < 0.9:
        return None
    where = "the observation of the same row" if best == 0 else f"the observation of {best} rows on"
    streams = f", or the rows of {best} environments are interleaved" if best > 1 else ""
    return (
        f"next_observations are shifted: they hold {where} instead of the next row's{streams}",
        "Rebuild them from the episodes: observations[:-1] and next_observations[1:] of each.",
    )


def _match(dataset: TransitionDataset, rows: Rows, offset: int | Array) -> float:
    """Share of `rows` whose next observation is the observation `offset` rows on, but not that of the next row."""
    other = rows + offset
    inside = (other >= 0) & (other < len(dataset)) & (rows + 1 < len(dataset))
    rows, other = rows[inside], other[inside]
    if len(rows) < 5:
        return 0.0
    equal, trivial = np.ones(len(rows), bool), np.ones(len(rows), bool)
    after = dict(parts(dataset.next_observations, ""))
    for name, now in parts(dataset.observations, ""):
        then = read(after[name], rows)
        equal &= ~differ(then, read(now, other))
        trivial &= ~differ(then, read(now, rows + 1))
    telling = ~trivial
    return float(equal[telling].mean()) if telling.sum() >= 5 else 0.0


def _is_rounding(dataset: TransitionDataset, wrong: Rows) -> bool:
    """Whether what differs is small beside what a step changes."""
    rows = wrong[:2000]
    after = dict(parts(dataset.next_observations, ""))
    for name, now in parts(dataset.observations, ""):
        then, here, following = (
            np.asarray(array, np.float64) for array in (after[name][rows], now[rows], now[rows + 1])
        )
        if np.median(np.abs(then - following)) > 0.1 * np.median(np.abs(following - here)):
            return False
    return True


def check_duplicates(dataset: TransitionDataset, track: Track) -> list[Finding]:
    """No trajectory of several steps is there twice, bit for bit."""
    starts = dataset.episode_starts
    arrays = [*(part for _, part in parts(dataset.observations, "")), dataset.actions]
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
    if not twice:
        return []
    rows = starts[[episode for _, episode in twice]]
    shown = ", ".join(f"{second} of {first}" for first, second in twice[:5])
    message = f"copies of other trajectories, bit for bit: {len(twice):,} ({shown}{', ...' if len(twice) > 5 else ''})"
    advice = "Drop the copies: they weigh double, and a validation split would contain training data."
    return [found(dataset, "duplicates", "fault", message, advice, rows=rows)]
