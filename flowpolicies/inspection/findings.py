"""What a check says, and the shared ways of reading a dataset: a block of rows at a time, or a sample of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import read
from flowpolicies.spaces.layout import Observations
from flowpolicies.tree import named_leaves

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.intp]
Severity = Literal["fault", "warning", "info"]
SIDES = {1: "after", -1: "before"}
"""Where the row `lag` rows on stands."""

Track = Callable[[Sequence[slice], str], Iterable[slice]]
"""Hands the blocks on, and may show how far the check of this title is."""


@final
@dataclass(frozen=True)
class Finding:
    """One thing that a check found."""

    check: str
    """Which check: `alignment`, `trajectories`, `flags`, `rewards`, `actions`, `values`, `observations`, `duplicates`,
    `environment`, `resimulation` or `loading`."""
    severity: Severity
    """A fault makes training wrong; a warning may be meant so; an info is a fact worth knowing."""
    message: str
    """What was found."""
    advice: str = ""
    """What to do."""
    count: int = 0
    """How often, in the unit that the message names."""
    row: int | None = None
    """The first transition concerned, counted from 0 over the whole dataset."""
    episode: int | None = None
    """Its trajectory, from 0."""
    step: int | None = None
    """Its step in that trajectory, from 0."""


def found(
    dataset: TransitionDataset,
    check: str,
    severity: Severity,
    message: str,
    advice: str = "",
    *,
    rows: Array | Sequence[int] = (),
    count: int | None = None,
) -> Finding:
    """A finding about `rows`, in ascending order; `count` is their number unless it is given."""
    number = len(rows) if count is None else count
    if not len(rows):
        return Finding(check, severity, message, advice, number)
    row = int(rows[0])
    episode = int(np.searchsorted(dataset.episode_ends, row))
    first = int(dataset.episode_ends[episode - 1]) + 1 if episode else 0
    return Finding(check, severity, message, advice, number, row, episode, row - first)


def fault_of_all_rows(dataset: TransitionDataset, check: str, message: str, advice: str) -> Finding:
    """A fault that begins in the first row and concerns them all."""
    return found(dataset, check, "fault", message, advice, rows=[0], count=len(dataset))


def parts(observations: Observations, name: str) -> Iterator[tuple[str, Array]]:
    """The arrays of observations with their names: "observations", or "observations/KEY" for each key."""
    yield from sorted(named_leaves(name, observations).items())


def is_image(array: Array) -> bool:
    """Bytes of at least two axes per row; statistics of single pixels say nothing."""
    return array.dtype == np.uint8 and array.ndim > 2


def draw(start: int, stop: int, count: int) -> Rows:
    """About `count` different rows from `start` to `stop - 1`, in random order; all of them if there are few."""
    generator = np.random.default_rng(0)
    if stop - start <= 4 * count:
        return start + generator.permutation(max(stop - start, 0))[:count]
    return generator.permutation(np.unique(generator.integers(start, stop, count)))


@final
@dataclass(frozen=True)
class Vectors:
    """Observations as vectors of float64, `[n, D]`; images are left out."""

    dataset: TransitionDataset

    @property
    def width(self) -> int:
        """D."""
        kept = (part for _, part in parts(self.dataset.observations, "") if not is_image(part))
        return sum(int(np.prod(part.shape[1:])) for part in kept)

    def now(self, rows: Array) -> Array:
        """Observations of these rows."""
        return _vectors(self.dataset.observations, rows)

    def next(self, rows: Array) -> Array:
        """Next observations of these rows."""
        return _vectors(self.dataset.next_observations, rows)

    def actions(self, rows: Array) -> Array:
        """Actions of these rows, `[n, A]`."""
        return np.asarray(read(self.dataset.actions, rows), np.float64).reshape(len(rows), -1)

    def steps(self, rows: Array) -> Array:
        """s' - s of these rows."""
        return self.next(rows) - self.now(rows)

    def inputs(self, rows: Array) -> Array:
        """s and a of these rows, what their steps depend on: `[n, D + A]`."""
        return np.concatenate([self.now(rows), self.actions(rows)], axis=1)


def _vectors(observations: Observations, rows: Array) -> Array:
    flat = [
        np.asarray(read(part, rows), np.float64).reshape(len(rows), -1)
        for _, part in parts(observations, "")
        if not is_image(part)
    ]
    return np.concatenate(flat, axis=1) if flat else np.zeros((len(rows), 0))
