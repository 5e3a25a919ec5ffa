"""Compact data: the T+1 states of a trajectory are stored once, instead of as T observations and T next observations.

Inside a trajectory the next observation of a row is the observation of the following row; only the state after the last
action is stored nowhere else. So a compact dataset stores `final_observations`, one for each trajectory, and its
`next_observations` are `Successors`. This saves nearly half of the memory or disk space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowpolicies.data.dataset.checks import DataFault, place
from flowpolicies.data.dataset.rows import LazyArray, LazyColumn, blocks, read
from flowpolicies.moved import moved_names
from flowpolicies.spaces.layout import Observations
from flowpolicies.tree import Array, leaves, named_leaves, nested, tree_map


@final
class Successors(LazyArray):
    """Next observations `[N, *shape]` that are assembled when they are read.

    Args:
        observations: `[N, *shape]`.
        finals: `[E, *shape]`, the state after the last action of each trajectory.
        ends: `[E]`, the last row of each trajectory, ascending, up to N - 1.

    Raises:
        ValueError: if the shapes, types or numbers of trajectories of these differ.
    """

    def __init__(self, observations: Array, finals: Array, ends: npt.NDArray[np.intp]) -> None:
        row, other = (observations.shape[1:], observations.dtype), (finals.shape[1:], finals.dtype)
        if row != other or len(finals) != len(ends) or not len(ends) or ends[-1] != len(observations) - 1:
            raise ValueError(
                f"{len(finals)} final observations of shape and type {other} do not fit {len(observations)} "
                f"observations of {row} in {len(ends)} trajectories. One is needed for each trajectory."
            )
        self.observations, self.finals, self.ends = observations, finals, ends
        self.shape, self.dtype = observations.shape, observations.dtype

    def _read(self, rows: npt.NDArray[np.intp]) -> Array:
        """The next observations of rows `[B]`, as a new array `[B, *shape]`."""
        following_rows, at_end, trajectory = _following_rows(rows, self.ends)
        following = read(self.observations, following_rows)
        following[at_end] = self.finals[trajectory]
        return following


@final
class SuccessorColumn:
    """The column of next observations of a compact dataset, assembled when rows are read.

    Args:
        states: the column of observations.
        finals: `[E, width]`, the state after the last action of each trajectory.
        ends: `[E]`, the last row of each trajectory, ascending.
    """

    def __init__(self, states: LazyColumn, finals: Tensor, ends: npt.NDArray[np.intp]) -> None:
        self.states, self.finals, self.ends = states, finals, ends

    def take(self, rows: Array, count: int = 1) -> Tensor:
        """The next observations of `rows` `[B]`, as a tensor `[B, width]`; `count` must be 1."""
        following_rows, at_end, trajectory = _following_rows(rows, self.ends)
        following = self.states.take(following_rows)
        following[torch.from_numpy(at_end)] = self.finals[torch.from_numpy(trajectory)]
        return following


def _following_rows(rows: Array, ends: npt.NDArray[np.intp]) -> tuple[Array, Array, Array]:
    """For `rows` `[B]`: the rows after them, whether they end a trajectory `[B]`, and which trajectories these are."""
    trajectory = np.searchsorted(ends, rows)
    at_end = ends[trajectory] == rows
    return np.minimum(rows + 1, ends[-1]), at_end, trajectory[at_end]


def successors(observations: Observations, finals: Observations, ends: npt.NDArray[np.intp]) -> Observations:
    """`Successors`, or a dict of them; they are typed as arrays, since they are read like arrays."""
    return tree_map(lambda part, final: cast(Array, Successors(part, final, ends)), observations, finals)


def in_full(next_observations: Observations) -> Observations:
    """Next observations as arrays, whether or not they are compact."""
    return tree_map(np.asarray, next_observations)


def finals_of(next_observations: Observations) -> Observations | None:
    """The final observations of compact next observations; None if they are not compact."""
    if not all(isinstance(part, Successors) for part in leaves(next_observations)):
        return None
    return tree_map(lambda part: cast(Successors, part).finals, next_observations)


def ends_of(next_observations: Observations) -> npt.NDArray[np.intp] | None:
    """The last rows of the trajectories for which compact next observations were made; None if they are not compact."""
    parts: list[Any] = leaves(next_observations)
    return next((part.ends for part in parts if isinstance(part, Successors)), None)


def compact_observations(
    name: str,
    observations: Observations,
    next_observations: Observations,
    terminals: Array,
    ends: npt.NDArray[np.intp],
) -> Observations:
    """Next observations as `Successors`.

    Args:
        name: the name of the dataset, for messages.
        observations: `[N, *shape]`, or a dict of such arrays.
        next_observations: the same for next observations.
        terminals: `[N]`, 1 on the last row of each trajectory.
        ends: `[E]`, the rows where `terminals` is 1.

    Raises:
        DataFault: if a next observation inside a trajectory is not the observation of the following row.
    """
    now, then = (named_leaves("next_observations", tree) for tree in (observations, next_observations))
    made = {}
    for key, part in then.items():
        in_blocks = (read(part, rows) for rows in blocks([part]))
        made[key] = cast(Array, successors_of(name, key, now[key], in_blocks, terminals, ends))
    compact: Observations = nested(made)["next_observations"]
    return compact


def successors_of(
    name: str,
    key: str,
    observations: Array,
    following: Iterable[Array],
    terminals: Array,
    ends: npt.NDArray[np.intp],
) -> Successors:
    """`Successors` from next observations of which only one block is in memory at a time.

    Args:
        name: the name of the dataset, for messages.
        key: the name of the next observations, for messages.
        observations: `[N, *shape]`.
        following: the next observations in blocks of successive rows, `[N, *shape]` together, of the same type.
        terminals: `[N]`, 1 on the last row of each trajectory.
        ends: `[E]`, the rows where `terminals` is 1, up to N - 1.

    Raises:
        DataFault: if a next observation inside a trajectory is not the observation of the following row.
    """
    finals, start = np.empty((len(ends), *observations.shape[1:]), observations.dtype), 0
    numbers = tuple(range(1, observations.ndim))  # The axes of one observation.
    for block in following:
        stop = start + len(block)
        first, last = np.searchsorted(ends, [start, stop])
        at_end = ends[first:last] - start
        finals[first:last] = block[at_end]
        derived = read(observations, slice(start + 1, stop + 1))
        given = block[: len(derived)]  # The last row ends a trajectory, and no row follows it.
        wrong = (given != derived).any(axis=numbers)
        wrong[at_end[at_end < len(wrong)]] = False
        if wrong.any() and derived.dtype.kind == "f":  # NaN in both places is for the checks of the dataset to refuse.
            wrong &= ~((given == derived) | np.isnan(given) & np.isnan(derived)).all(axis=numbers)
        if wrong.any():
            row = start + int(np.flatnonzero(wrong)[0])
            raise DataFault(
                f"dataset '{name}' cannot be compact: {key} of {place(row, terminals)} are not the observations of the "
                "next row. Keep the dataset as it is, or inspect it with `flowpolicies data check`."
            )
        start = stop
    return Successors(observations, finals, ends)


def unpack(arrays: Mapping[str, Array], ends: npt.NDArray[np.intp] | None = None) -> dict[str, Any]:
    """Fields of a dataset from its stored arrays.

    Args:
        arrays: the arrays by name, as `TransitionDataset.stored` returns them.
        ends: last rows of the trajectories; None: they are read from the terminals.
    """
    fields = nested(arrays)
    if "final_observations" in fields:
        ends = np.flatnonzero(fields["terminals"]) if ends is None else ends
        fields["next_observations"] = successors(fields["observations"], fields.pop("final_observations"), ends)
    return fields


__getattr__ = moved_names(__name__, {"Following": "flowpolicies.data.dataset.compact:SuccessorColumn"})
