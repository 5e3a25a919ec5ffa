"""Transitions from tables with one row per step, such as pandas DataFrames."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from flowpolicies.data.dataset.checks import DataFault, as_flags, as_numbers, check_continuous
from flowpolicies.data.dataset.episodes import Pairs, last_of_each, pair_rows
from flowpolicies.messages import did_you_mean
from flowpolicies.spaces.layout import Observations
from flowpolicies.tree import Array, take, tree_map

ColumnNames = Sequence[str] | Mapping[str, Sequence[str]]
"""Names of the columns of an observation, or such names for each key of a Dict space."""


class TableColumns(NamedTuple):
    """Names of the columns of a table, see `TransitionDataset.from_dataframe`."""

    observations: ColumnNames
    actions: Sequence[str]
    rewards: str
    terminations: str | None
    truncations: str | None
    episode: str | None
    step: str | None
    next_observations: ColumnNames | None


def arguments_of_dataframe(
    frame: Any, columns: TableColumns, *, name: str, may_be_discrete: bool
) -> tuple[dict[str, Any], int]:
    """The arguments of `TransitionDataset.from_arrays` from a table, and the number of rows that were dropped.

    Args:
        frame: a pandas DataFrame, or another object with `frame.columns` and `frame[name].to_numpy()`.
        columns: the names of the columns.
        name: the name of the dataset, for messages.
        may_be_discrete: accept actions of an integer type, because the action space is known.

    Raises:
        ValueError: if a column is missing or does not hold numbers, or something is wrong with the data.
    """
    table = _Table(frame, f"dataset '{name}'")
    if columns.episode is None and columns.terminations is None and columns.truncations is None:
        raise ValueError(f"{table.where}: say where episodes end, by episode=, or by terminations= or truncations=.")
    order, episodes = table.order(columns.episode, columns.step)
    acted = table.matrix(columns.actions)
    if not may_be_discrete:
        check_continuous(table.where, np.result_type(*(table.raw(column).dtype for column in columns.actions)))
    observations, rewards = take(table.observations(columns.observations), order), table.numbers(columns.rewards)[order]
    blank = np.asarray(np.isnan(acted).all(1))
    flag_columns = (columns.terminations, columns.truncations)
    terminated, truncated = (table.flags(column, blank)[order] for column in flag_columns)
    if episodes is None:
        episodes = np.append(0, np.cumsum(terminated | truncated)[:-1])
    ends = last_of_each(episodes).astype(bool)
    if columns.next_observations is None:
        only_observed = ends & blank[order]
        _check_no_reward(table.where, episodes, rewards, only_observed)
        terminated = _move_back(terminated, episodes, only_observed)
        pairs = pair_rows(ends, terminated & ~only_observed)
        next_observations = take(observations, pairs.next_rows)
    else:
        pairs = Pairs(np.arange(len(order)), order, ends.astype(np.float32))
        next_observations = take(table.observations(columns.next_observations), order)
    for column, flags in zip(flag_columns, (terminated, truncated), strict=True):
        _check_inside(table.where, column, episodes[pairs.rows], flags[pairs.rows] & (pairs.terminals == 0))
    _warn_of_lost_steps(table.where, int((~blank[order]).sum()) - len(pairs.rows))
    arguments = {
        "observations": take(observations, pairs.rows),
        "actions": acted[order][pairs.rows],
        "rewards": rewards[pairs.rows],
        "next_observations": next_observations,
        "masks": ~terminated[pairs.rows],
        "terminals": pairs.terminals,
    }
    return arguments, len(order) - len(pairs.rows)


@final
class _Table:
    """The columns of a table as arrays.

    Args:
        frame: the table.
        where: the beginning of messages.
    """

    def __init__(self, frame: Any, where: str) -> None:
        self.frame, self.where = frame, where
        self.columns = list(frame.columns)
        if len(frame) == 0:
            raise DataFault(f"{where}: the table has no rows.")

    def raw(self, column: str) -> Array:
        """The values of a column as they are, `[R]`."""
        count = self.columns.count(column)
        if count == 0:
            known = [str(name) for name in self.columns]
            raise ValueError(
                f"{self.where}: there is no column '{column}' (there are: {', '.join(known)})."
                f"{did_you_mean(str(column), known)}"
            )
        if count > 1:
            raise ValueError(f"{self.where}: {count} columns are called '{column}'. Rename or drop all but one.")
        return np.asarray(self.frame[column].to_numpy())

    def numbers(self, column: str) -> Array:
        """The numbers in a column, `[R]` float32."""
        return as_numbers(self.where, f"the values of column '{column}'", self.raw(column)).astype(np.float32)

    def matrix(self, columns: Sequence[str]) -> Array:
        """The numbers in several columns, `[R, C]` float32."""
        if isinstance(columns, str) or not columns:
            raise ValueError(f"{self.where}: expected a list of column names, got {columns!r}.")
        return np.stack([self.numbers(column) for column in columns], 1)

    def observations(self, columns: ColumnNames) -> Observations:
        """Observations `[R, C]`, or a dict of such arrays."""
        return tree_map(self.matrix, columns)

    def flags(self, column: str | None, blank: Array) -> npt.NDArray[np.bool_]:
        """The flags in a column, `[R]`; all false if `column` is None.

        Args:
            column: name of the column.
            blank: `[R]`, true on rows without actions, where a missing flag counts as false.
        """
        if column is None:
            return np.zeros(len(self.frame), bool)
        values = self.numbers(column)
        values[blank & np.isnan(values)] = 0
        return as_flags(self.where, f"the values of column '{column}'", values)

    def order(self, episode: str | None, step: str | None) -> tuple[npt.NDArray[np.intp], Array | None]:
        """The rows sorted by episode and step, `[R]`, and the number of the episode of each sorted row, `[R]`.

        Without a column `episode` the rows keep their order, and the numbers are None.
        """
        if episode is None:
            if step is not None:
                raise ValueError(f"{self.where}: step='{step}' sorts the rows of an episode, so it needs episode=.")
            return np.arange(len(self.frame)), None
        if step is not None and self.raw(step).dtype.kind not in "iufmM":
            raise DataFault(
                f"{self.where}: column '{step}' sorts the rows, and holds {self.raw(step).dtype}, not numbers or times "
                "(as text, '10' comes before '2'). Convert it first."
            )
        _, first, inverse = np.unique(self._full(episode), return_index=True, return_inverse=True)
        numbers = np.argsort(np.argsort(first))[inverse.reshape(-1)]
        steps = np.arange(len(numbers)) if step is None else self._full(step)
        order = np.lexsort((steps, numbers))
        numbers, steps = numbers[order], steps[order]
        twice = np.flatnonzero((numbers[1:] == numbers[:-1]) & (steps[1:] == steps[:-1]))
        if len(twice):
            raise DataFault(
                f"{self.where}: episode {numbers[twice[0]]} has two rows with {step} = {steps[twice[0]]}. Steps of an "
                "episode must differ."
            )
        if step is not None and steps.dtype.kind in "iu":
            self._warn_of_gaps(step, steps, numbers)
        return order, numbers

    def _warn_of_gaps(self, step: str, steps: Array, numbers: Array) -> None:
        """Warns of missing steps, because the row after a gap holds the observation of a later step."""
        inside = numbers[1:] == numbers[:-1]
        strides = np.diff(steps.astype(np.int64))
        gaps = np.flatnonzero(inside & (strides > (strides[inside].min() if inside.any() else 1)))
        if len(gaps):
            warnings.warn(
                f"{self.where}: column '{step}' leaves out steps in {len(gaps):,} places, first after {steps[gaps[0]]} "
                f"in episode {numbers[gaps[0]]}: there the next row is not the result of the action. Give such parts "
                "names of their own in the column episode=, or pass next_observations=.",
                stacklevel=5,
            )

    def _full(self, column: str) -> Array:
        """The values of a column in which no value may be missing."""
        values = self.raw(column)
        gaps = [row for row, value in enumerate(values.tolist()) if _is_gap(value)]
        if gaps:
            raise DataFault(f"{self.where}: column '{column}' is empty in row {gaps[0]}.")
        return values


def _is_gap(value: Any) -> bool:
    """Whether a value is missing: None, NaN, NaT, or pandas.NA, whose comparison with itself has no truth value."""
    try:
        return value is None or bool(value != value)
    except TypeError:
        return True


def _warn_of_lost_steps(where: str, lost: int) -> None:
    if lost > 0:
        warnings.warn(
            f"{where}: {lost:,} rows were dropped, the last ones of episodes that did not terminate, because the table "
            "does not hold the observation after them. End each episode with a row that has only the last observation.",
            stacklevel=4,  # The line that called TransitionDataset.from_dataframe.
        )


def _check_no_reward(where: str, episodes: Array, rewards: Array, observed: Array) -> None:
    """Checks that rows with only the last observation of an episode have no reward, which would belong to a step."""
    earned = np.flatnonzero(observed & ~np.isnan(rewards) & (rewards != 0))
    if len(earned):
        raise DataFault(
            f"{where}: the last row of episode {episodes[earned[0]]} has no actions, but a reward of "
            f"{rewards[earned[0]]:.6g}. A reward belongs in the row of the action that earned it."
        )


def _move_back(terminated: npt.NDArray[np.bool_], episodes: Array, observed: Array) -> npt.NDArray[np.bool_]:
    """Moves terminations from rows with only the last observation of an episode to the step before them."""
    moved = terminated.copy()
    moved[:-1] |= terminated[1:] & observed[1:] & (episodes[1:] == episodes[:-1])
    return moved


def _check_inside(where: str, column: str | None, episodes: Array, inside: Array) -> None:
    rows = np.flatnonzero(inside)
    if len(rows):
        number = episodes[rows[0]]
        raise DataFault(
            f"{where}: '{column}' is true at step {rows[0] - np.searchsorted(episodes, number)} of episode {number}, "
            "which continues. Give each episode its own name in the column episode=."
        )
