"""Tables with one row per step, such as pandas DataFrames, as transitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Space

from flowpolicies.data.dataset.checks import DataFault, as_flags, as_numbers, check_continuous
from flowpolicies.data.dataset.dataset import Observations, TransitionDataset
from flowpolicies.data.formats.episodes import Pairs, last_of_each, pair_rows, take
from flowpolicies.messages import did_you_mean

Array = npt.NDArray[Any]
Columns = Sequence[str] | Mapping[str, Sequence[str]]


def from_dataframe(
    frame: Any,
    *,
    observations: Columns,
    actions: Sequence[str],
    rewards: str,
    terminations: str | None,
    truncations: str | None = None,
    episode: str | None = None,
    step: str | None = None,
    next_observations: Columns | None = None,
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    name: str = "dataframe",
    provenance: Mapping[str, Any] | None = None,
) -> TransitionDataset:
    """A dataset from a table with one row per step: the observation, the action taken on it, and what followed.

    Without `next_observations` the next observation of a row is the observation of the episode's following row. The
    last row of an episode then has none. It is dropped, unless it terminated: nothing reads its next observation, and
    its own stands in. Nothing is lost if episodes end with a row that holds the last observation and no actions (NaN).

    Args:
        frame: a pandas DataFrame, or anything else with `frame.columns` and `frame[name].to_numpy()`.
        observations: columns of the observation; for a Dict space, a mapping from keys to columns.
        actions: columns of the action.
        rewards: column of the reward of the row's action.
        terminations: column that is true where an episode ended in a terminal state; None: none did.
        truncations: column that is true where an episode was cut short.
        episode: column that names the episode, whose rows need not be neighbours; None: an episode ends where
            `terminations` or `truncations` is true.
        step: column to sort the rows of an episode by; None: they are in the order in which they happened.
        next_observations: columns of the observation that the action led to, if the table has them.
        observation_space: of the observations; None: unbounded.
        action_space: of the actions; None: [-1, 1].
        name: what messages call this dataset.
        provenance: more about where it came from, as JSON data.

    Raises:
        ValueError: if a column is missing or holds no numbers, or something is wrong with the data; it names the
            episode, counted in the order in which episodes begin.
    """
    table = _Table(frame, f"dataset '{name}'")
    if episode is None and terminations is None and truncations is None:
        raise ValueError(f"{table.where}: say where episodes end, by episode=, or by terminations= or truncations=.")
    order, episodes = table.order(episode, step)
    acted = table.matrix(actions)
    if action_space is None:
        check_continuous(table.where, np.result_type(*(table.raw(column).dtype for column in actions)))
    now, taken = take(table.observations(observations), order), acted[order]
    earned = table.numbers(rewards)[order]
    blank = np.asarray(np.isnan(acted).all(1))
    terminated, truncated = (table.flags(column, blank)[order] for column in (terminations, truncations))
    if episodes is None:
        episodes = np.append(0, np.cumsum(terminated | truncated)[:-1])
    ends = last_of_each(episodes).astype(bool)
    if next_observations is None:
        observed = ends & blank[order]
        _check_no_reward(table.where, episodes, earned, observed)
        terminated = _move_back(terminated, episodes, observed)
        pairs = pair_rows(ends, terminated & ~observed)
        following = take(now, pairs.next_rows)
    else:
        pairs = Pairs(np.arange(len(order)), order, ends.astype(np.float32))
        following = take(table.observations(next_observations), order)
    for column, flags in ((terminations, terminated), (truncations, truncated)):
        _check_inside(table.where, column, episodes[pairs.rows], flags[pairs.rows] & (pairs.terminals == 0))
    dropped = {} if len(pairs.rows) == len(order) else {"dropped_rows": len(order) - len(pairs.rows)}
    return TransitionDataset.from_arrays(
        take(now, pairs.rows),
        taken[pairs.rows],
        earned[pairs.rows],
        following,
        masks=~terminated[pairs.rows],
        terminals=pairs.terminals,
        observation_space=observation_space,
        action_space=action_space,
        name=name,
        provenance={"source": "dataframe", **dropped, **(provenance or {})},
    )


@final
class _Table:
    """Columns of a data frame as arrays."""

    def __init__(self, frame: Any, where: str) -> None:
        self.frame, self.where = frame, where
        self.columns = list(frame.columns)
        if len(frame) == 0:
            raise DataFault(f"{where}: the table has no rows.")

    def raw(self, column: str) -> Array:
        """`[R]`, whatever the column holds."""
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
        """`[R]` float32."""
        return as_numbers(self.where, f"the values of column '{column}'", self.raw(column)).astype(np.float32)

    def matrix(self, columns: Sequence[str]) -> Array:
        """`[R, C]` float32."""
        if isinstance(columns, str) or not columns:
            raise ValueError(f"{self.where}: expected a list of column names, got {columns!r}.")
        return np.stack([self.numbers(column) for column in columns], 1)

    def observations(self, columns: Columns) -> Observations:
        """`[R, C]`, or a dict of such arrays."""
        if isinstance(columns, Mapping):
            return {key: self.matrix(part) for key, part in columns.items()}
        return self.matrix(columns)

    def flags(self, column: str | None, blank: Array) -> npt.NDArray[np.bool_]:
        """`[R]`; nothing is true without a column, or where one of the `blank` rows has a gap."""
        if column is None:
            return np.zeros(len(self.frame), bool)
        values = self.numbers(column)
        values[blank & np.isnan(values)] = 0
        return as_flags(self.where, f"the values of column '{column}'", values)

    def order(self, episode: str | None, step: str | None) -> tuple[npt.NDArray[np.intp], Array | None]:
        """`[R]`, the rows episode after episode, and the number of the episode that each then belongs to."""
        if episode is None:
            if step is not None:
                raise ValueError(f"{self.where}: step='{step}' sorts the rows of an episode, so it needs episode=.")
            return np.arange(len(self.frame)), None
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
        return order, numbers

    def _full(self, column: str) -> Array:
        """A column without gaps."""
        values = self.raw(column)
        gaps = [row for row, value in enumerate(values.tolist()) if _is_gap(value)]
        if gaps:
            raise DataFault(f"{self.where}: column '{column}' is empty in row {gaps[0]}.")
        return values


def _is_gap(value: Any) -> bool:
    """None, NaN, NaT, or pandas.NA, which does not even say whether it equals itself."""
    try:
        return value is None or bool(value != value)
    except TypeError:
        return True


def _check_no_reward(where: str, episodes: Array, rewards: Array, observed: Array) -> None:
    """Rows that hold only the last observation earned nothing; otherwise rewards are meant for the row before."""
    earned = np.flatnonzero(observed & ~np.isnan(rewards) & (rewards != 0))
    if len(earned):
        raise DataFault(
            f"{where}: the last row of episode {episodes[earned[0]]} has no actions, but a reward of "
            f"{rewards[earned[0]]:.6g}. A reward belongs into the row of the action that earned it."
        )


def _move_back(terminated: npt.NDArray[np.bool_], episodes: Array, observed: Array) -> npt.NDArray[np.bool_]:
    """What is said in a row that holds only the last observation is true of the step before it."""
    moved = terminated.copy()
    moved[:-1] |= terminated[1:] & observed[1:] & (episodes[1:] == episodes[:-1])
    return moved


def _check_inside(where: str, column: str | None, episodes: Array, inside: Array) -> None:
    rows = np.flatnonzero(inside)
    if len(rows):
        number = episodes[rows[0]]
        raise DataFault(
            f"{where}: '{column}' is true at step {rows[0] - np.searchsorted(episodes, number)} of episode {number}, "
            "which goes on. Give each episode a name of its own in the column episode=."
        )
