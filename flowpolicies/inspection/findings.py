"""Findings, the results of checks, and functions that several checks use to read samples of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import numpy.typing as npt

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import read
from flowpolicies.spaces.layout import Observations
from flowpolicies.tree import Array, named_leaves, tree_map

Rows = npt.NDArray[np.intp]
Severity = Literal["fault", "warning", "info", "not judged"]
MOST_ENDS = 20_000
"""Largest number of ends of trajectories that a check examines."""
SIDES = {1: "after", -1: "before"}
"""Word for the place of the row that is `lag` rows later, for messages."""

SPLIT_EPISODES = (
    "Split every episode before concatenating, as TransitionDataset.from_episodes does: all but the last of its T+1 "
    "states are its observations, and all but the first are its next_observations."
)
"""Advice for arrays that were not made from episodes of T+1 states and T actions."""

OGBENCH_REWARDS = (
    "OGBench before version 1.2.0 computes rewards from the next state in its environments, but from the current state "
    "in its data."
)
"""Advice for rewards that are one step off."""

Track = Callable[[Sequence[slice], str], Iterable[slice]]
"""Function that returns the blocks of rows to be checked and may show the progress of the check with this title."""


@final
@dataclass(frozen=True)
class Finding:
    """One result of a check of a dataset."""

    check: str
    """Name of the check.

    One of `alignment`, `trajectories`, `flags`, `rewards`, `actions`, `values`, `observations`, `duplicates`,
    `environment`, `resimulation` and `loading`.
    """
    severity: Severity
    """A fault makes training wrong. A warning may be intended. An info states a fact that is worth knowing.

    "not judged": the check could not be made, for the reason that the message gives.
    """
    message: str
    """Description of the finding, without a full stop."""
    advice: str = ""
    """Advice on what to do about the finding."""
    count: int = 0
    """Number of occurrences, in the unit that the message names."""
    row: int | None = None
    """First transition concerned, counted from 0 over the whole dataset."""
    episode: int | None = None
    """Trajectory of that transition, counted from 0."""
    step: int | None = None
    """Step of that transition in its trajectory, counted from 0."""


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
    """Makes a finding.

    Args:
        dataset: the dataset, for the place of the first row.
        check: name of the check.
        severity: "fault", "warning" or "info".
        message: description of the finding.
        advice: what to do about it.
        rows: the transitions concerned, in ascending order.
        count: number of occurrences; None: the number of rows.
    """
    number = len(rows) if count is None else count
    if not len(rows):
        return Finding(check, severity, message, advice, number)
    row = int(rows[0])
    episode = int(np.searchsorted(dataset.episode_ends, row))
    first = int(dataset.episode_ends[episode - 1]) + 1 if episode else 0
    return Finding(check, severity, message, advice, number, row, episode, row - first)


def not_judged(check: str, why: str) -> Finding:
    """States that something could not be checked, and why."""
    return Finding(check, "not judged", why)


def fault_of_all_rows(dataset: TransitionDataset, check: str, message: str, advice: str) -> Finding:
    """Makes a finding about a fault that concerns all rows."""
    return found(dataset, check, "fault", message, advice, rows=[0], count=len(dataset))


def listed(items: Sequence[object] | Array, most: int) -> str:
    """The first `most` items, separated by commas, for messages."""
    return ", ".join([*(str(item) for item in items[:most]), *(["..."] if len(items) > most else [])])


def named_arrays(name: str, observations: Observations) -> list[tuple[str, Array]]:
    """The arrays of observations with their names, sorted: NAME, or NAME/KEY for each key of Dict observations."""
    return sorted(named_leaves(name, observations).items())


def observation_pairs(dataset: TransitionDataset) -> dict[str, tuple[Array, Array]]:
    """The arrays of observations and of next observations, by the name of the observations."""
    pairs = tree_map(lambda now, then: (now, then), dataset.observations, dataset.next_observations)
    return named_leaves("observations", pairs)


def is_image(array: Array) -> bool:
    """Whether rows are images, that is bytes with at least two axes; statistics of single pixels say nothing."""
    return array.dtype == np.uint8 and array.ndim > 2


def sample_rows(start: int, stop: int, count: int) -> Rows:
    """Draws about `count` different rows from `start` to `stop - 1`, in random order, or all of them if they are few.

    The draw is the same every time, so that a check gives the same findings every time.
    """
    generator = np.random.default_rng(0)
    if stop - start <= 4 * count:
        return start + generator.permutation(max(stop - start, 0))[:count]
    return generator.permutation(np.unique(generator.integers(start, stop, count)))


@final
@dataclass(frozen=True)
class Vectors:
    """Rows of a dataset as vectors of float64, without images and categories. D is the width of such a vector."""

    dataset: TransitionDataset
    """Dataset whose rows are read."""

    @property
    def width(self) -> int:
        """Width D of an observation; 0 if there are only images and categories."""
        return sum(int(np.prod(array.shape[1:])) for array in quantities(self.dataset.observations))

    def now(self, rows: Array) -> Array:
        """Observations of `rows` `[n]`, `[n, D]`."""
        return _vectors(self.dataset.observations, rows)

    def next(self, rows: Array) -> Array:
        """Next observations of `rows` `[n]`, `[n, D]`."""
        return _vectors(self.dataset.next_observations, rows)

    def actions(self, rows: Array) -> Array:
        """Actions of `rows` `[n]`, `[n, A]`."""
        return np.asarray(read(self.dataset.actions, rows), np.float64).reshape(len(rows), -1)

    def steps(self, rows: Array) -> Array:
        """Changes from the observation to the next observation of `rows` `[n]`, `[n, D]`."""
        return self.next(rows) - self.now(rows)

    def inputs(self, rows: Array) -> Array:
        """Observations and actions of `rows` `[n]`, on which their steps depend, `[n, D + A]`."""
        return np.concatenate([self.now(rows), self.actions(rows)], axis=1)


def is_quantity(array: Array) -> bool:
    """Whether rows are numbers whose differences mean something: neither images nor numbers of categories."""
    return not is_image(array) and array.dtype.kind != "i"


def quantities(observations: Observations) -> list[Array]:
    """The arrays of observations that are neither images nor categories."""
    return [array for _, array in named_arrays("observations", observations) if is_quantity(array)]


def _vectors(observations: Observations, rows: Array) -> Array:
    arrays = quantities(observations)
    flat = [np.asarray(read(array, rows), np.float64).reshape(len(rows), -1) for array in arrays]
    return np.concatenate(flat, axis=1) if flat else np.zeros((len(rows), 0))
