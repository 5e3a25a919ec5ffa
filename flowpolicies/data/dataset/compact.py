"""Compact data: the T+1 states of a trajectory once, instead of T observations and T next observations.

Inside a trajectory the next observation of a row is the observation of the row after it; only the state after the last
action is nowhere else. So a compact dataset stores `final_observations`, one for each trajectory, and its
`next_observations` are `Successors`: half the memory, or half the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowpolicies.data.dataset.checks import DataFault, place
from flowpolicies.data.dataset.rows import LazyColumn, blocks, read

if TYPE_CHECKING:
    from flowpolicies.data.dataset.dataset import Observations, TransitionDataset

Array = npt.NDArray[Any]


@final
class Successors(np.lib.mixins.NDArrayOperatorsMixin):
    """Next observations that are put together when they are read: an array `[N, *shape]` to those who index its rows.

    NumPy's functions get a copy of the whole.

    Args:
        observations: `[N, *shape]`.
        finals: `[E, *shape]`, the state after the last action of each trajectory.
        ends: `[E]`, the last row of each trajectory, ascending; the last one is N - 1.

    Raises:
        ValueError: if these do not belong together.
    """

    def __init__(self, observations: Array, finals: Array, ends: npt.NDArray[np.intp]) -> None:
        row, other = (observations.shape[1:], observations.dtype), (finals.shape[1:], finals.dtype)
        if row != other or len(finals) != len(ends) or not len(ends) or ends[-1] != len(observations) - 1:
            raise ValueError(
                f"{len(finals)} final observations of shape and type {other} do not fit {len(observations)} "
                f"observations of {row} in {len(ends)} trajectories. One is needed for each trajectory."
            )
        self.observations, self.finals, self.ends = observations, finals, ends
        self.shape, self.dtype, self.ndim = observations.shape, observations.dtype, observations.ndim

    def __len__(self) -> int:
        return len(self.observations)

    def __getitem__(self, index: Any) -> Any:
        rows, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        if isinstance(rows, slice):
            numbers = np.arange(*rows.indices(len(self)))
        elif (given := np.asarray(rows)).dtype == bool:
            numbers = np.flatnonzero(given)
        else:
            numbers = np.where(given < 0, given + len(self), given)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < len(self)):
            raise IndexError(f"row {index} is out of bounds for {len(self)} transitions")
        found = self._read(numbers.reshape(-1)).reshape(*numbers.shape, *self.shape[1:])
        return found[(*[slice(None)] * numbers.ndim, *rest)] if rest else found

    def _read(self, rows: npt.NDArray[np.intp]) -> Array:
        """What follows on rows `[B]`, a new array `[B, *shape]`."""
        later, at_end, number = _after(rows, self.ends)
        following = read(self.observations, later)
        following[at_end] = self.finals[number]
        return following

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        whole: Array = self[:]
        return whole.astype(dtype or self.dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [np.asarray(value) if isinstance(value, Successors) else value for value in inputs]
        return getattr(ufunc, method)(*arrays, **options)


@final
class Following:
    """The column of next observations of a compact dataset.

    Args:
        states: the column of observations.
        finals: `[E, width]`, the state after the last action of each trajectory.
        ends: `[E]`, the last row of each trajectory, ascending.
    """

    def __init__(self, states: LazyColumn, finals: Tensor, ends: npt.NDArray[np.intp]) -> None:
        self.states, self.finals, self.ends = states, finals, ends

    def take(self, rows: Array, count: int = 1) -> Tensor:
        """Next observations of `rows` `[B]`, `[B, width]`; `count` must be 1."""
        later, at_end, number = _after(rows, self.ends)
        following = self.states.take(later)
        following[torch.from_numpy(at_end)] = self.finals[torch.from_numpy(number)]
        return following


def _after(rows: Array, ends: npt.NDArray[np.intp]) -> tuple[Array, Array, Array]:
    """The rows after `rows` `[B]`, which of `rows` end a trajectory, `[B]`, and which trajectories they end."""
    number = np.searchsorted(ends, rows)
    at_end = ends[number] == rows
    return np.minimum(rows + 1, ends[-1]), at_end, number[at_end]


def successors(observations: Observations, finals: Observations, ends: npt.NDArray[np.intp]) -> Observations:
    """`Successors`, or a dict of them. The type says array, which they are to all who only read rows."""
    if isinstance(observations, dict):
        assert isinstance(finals, dict)
        return {key: cast(Array, Successors(part, finals[key], ends)) for key, part in observations.items()}
    assert not isinstance(finals, dict)
    return cast(Array, Successors(observations, finals, ends))


def in_full(following: Observations) -> Observations:
    """Next observations as arrays."""
    if isinstance(following, dict):
        return {key: np.asarray(part) for key, part in following.items()}
    return np.asarray(following)


def finals_of(following: Observations) -> Observations | None:
    """The final observations of compact next observations; None of others."""
    if isinstance(following, dict):
        parts = {key: found for key, part in following.items() if (found := _parts(part)) is not None}
        return {key: part.finals for key, part in parts.items()} if len(parts) == len(following) else None
    found = _parts(following)
    return None if found is None else found.finals


def ends_of(following: Observations) -> npt.NDArray[np.intp] | None:
    """The last rows of the trajectories that compact next observations are for; None of others."""
    parts = following.values() if isinstance(following, dict) else [following]
    return next((found.ends for part in parts if (found := _parts(part)) is not None), None)


def _parts(following: Array) -> Successors | None:
    array: object = following
    return array if isinstance(array, Successors) else None


def compact_observations(dataset: TransitionDataset) -> Observations:
    """Next observations of the dataset as `Successors`.

    Raises:
        ValueError: if a next observation inside a trajectory is not the observation of the next row.
    """
    ends = dataset.episode_ends

    def joined(now: Array, following: Array, key: str) -> Array:
        derived = Successors(now, read(following, ends), ends)
        for rows in blocks([now]):
            wrong = (read(following, rows) != derived[rows]).reshape(rows.stop - rows.start, -1)
            if wrong.any():
                row = rows.start + int(np.flatnonzero(wrong.any(axis=1))[0])
                raise DataFault(
                    f"dataset '{dataset.name}' cannot be compact: {key} of {place(row, dataset.terminals)} are not the "
                    "observations of the next row. Keep it as it is, or see what `flowpolicies data check` says of it."
                )
        return cast(Array, derived)

    now, following = dataset.observations, dataset.next_observations
    if isinstance(now, dict):
        assert isinstance(following, dict)
        return {key: joined(part, following[key], f"next_observations/{key}") for key, part in now.items()}
    assert not isinstance(following, dict)
    return joined(now, following, "next_observations")


def nest(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Puts `observations/key` back into dicts."""
    fields: dict[str, Any] = {}
    for key, array in arrays.items():
        name, _, part = key.partition("/")
        fields[name] = {**fields.get(name, {}), part: array} if part else array
    return fields


def unpack(arrays: Mapping[str, Array], ends: npt.NDArray[np.intp] | None = None) -> dict[str, Any]:
    """Fields of a dataset from its stored arrays.

    Args:
        ends: last rows of the trajectories, if they are known.
    """
    fields = nest(arrays)
    if "final_observations" in fields:
        ends = np.flatnonzero(fields["terminals"]) if ends is None else ends
        fields["next_observations"] = successors(fields["observations"], fields.pop("final_observations"), ends)
    return fields
