"""Storage of transitions in columns, and windows of consecutive steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from flowpolicies.data.dataset.rows import LazyColumn
from flowpolicies.data.replay.episodes import Episodes


class Windows(NamedTuple):
    """Summaries of windows of H steps.

    They are the last entries of the sequences that `Dataset.sample_sequence` returns in `utils/datasets.py` of
    https://github.com/ColinQiyangLi/qam.
    """

    rewards: Tensor
    """Discounted sum of the rewards up to the end of the episode, `[B]`."""
    masks: Tensor
    """Whether values may bootstrap after the window: 0 if the episode terminated inside it, otherwise 1, `[B]`."""
    last: Tensor
    """Row of the last step in the window that belongs to the episode, `[B]`."""
    valid: Tensor
    """Whether all H steps belong to one episode (1, also if it ends exactly with the window) or not (0), `[B]`. It is 1
    for every window that is cut."""
    steps: Tensor
    """Number of steps of the window whose rewards count, between 1 and H, `[B]` int64."""


class CachedWindows(NamedTuple):
    """Summaries of all windows of a store that no longer changes; entry i belongs to the window that starts in row i.

    They are NumPy arrays because NumPy gathers rows faster than PyTorch.
    """

    rewards: np.ndarray
    """Discounted sums of rewards, see `Windows`, `[N]`."""
    discounts: np.ndarray
    """Discount of the value after the window: gamma to the power of its steps, times the mask, `[N]`."""
    valid: np.ndarray
    """Whether losses use the window, see `Windows`, `[N]` bool."""
    span: np.ndarray
    """Number of rows from the first one to `Windows.last`, `[N]` int16."""
    chunks: Tensor | None
    """Action chunks as a view of the actions, `[M, horizon * A]`; None if the actions are in a file."""


Columns = dict[str, Tensor]
"""Values by column."""


@final
class Store:
    """Transitions of `n_envs` environments in columns; the oldest ones are overwritten when the store is full.

    Each environment is a stream of steps. The streams are interleaved: step `time` of stream `env` is in the row
    `time * n_envs + env`.

    Args:
        capacity: number of steps of each stream that the store has room for.
        n_envs: number of environments.
        columns: tensors with `capacity * n_envs` rows, by name.
        in_files: columns whose rows are read when they are needed, by name.
    """

    infos: list[Mapping[str, Any]] | None = None  # Missing in the files of older versions.

    def __init__(
        self, capacity: int, n_envs: int, columns: dict[str, Tensor], in_files: dict[str, LazyColumn] | None = None
    ) -> None:
        self.capacity, self.n_envs, self.columns, self.in_files = capacity, n_envs, columns, in_files or {}
        self.head, self.size = 0, 0
        self.cached: CachedWindows | None = None
        self.episodes = Episodes(capacity, n_envs)

    @classmethod
    def empty(cls, capacity: int, n_envs: int, widths: dict[str, tuple[int, torch.dtype]]) -> Store:
        """A store without transitions.

        NumPy allocates the columns, because the operating system gives memory to its zeros only when they are written.

        Args:
            capacity: number of steps of each stream that the store has room for.
            n_envs: number of environments.
            widths: width and type of each column by name; a width of 0 means one number per row.
        """
        dtypes = {torch.uint8: np.uint8, torch.float32: np.float32}
        rows = capacity * n_envs
        shape = {name: (rows, width) if width else (rows,) for name, (width, _) in widths.items()}
        columns = {name: torch.from_numpy(np.zeros(shape[name], dtypes[dtype])) for name, (_, dtype) in widths.items()}
        return cls(capacity, n_envs, columns)

    @classmethod
    def filled(
        cls,
        capacity: int,
        n_envs: int,
        widths: dict[str, tuple[int, torch.dtype]],
        steps: Columns,
        infos: Sequence[Mapping[str, Any]] | None = None,
        head: int = 0,
    ) -> Store:
        """A store with the given steps.

        Args:
            capacity: number of steps of each stream that the store has room for, at least T.
            n_envs: number of environments.
            widths: width and type of each column, see `empty`.
            steps: the values `[T, n_envs, ...]` of each column, oldest step first.
            infos: the info dicts of the steps, oldest step first; None: they are not stored.
            head: where the oldest step is stored if the store is full.
        """
        store, count = cls.empty(capacity, n_envs, widths), len(steps["terminals"])
        store.head, store.size = head if count == capacity else count, count
        rows = store.at(torch.arange(n_envs), torch.arange(count).unsqueeze(-1))
        for name, values in steps.items():
            store.columns[name][rows] = values
        store.episodes.extend(steps["terminals"])
        if infos is not None:
            store.infos = [{}] * (capacity * n_envs)
            for row, info in zip(rows.flatten().tolist(), infos, strict=True):
                store.infos[row] = info
        return store

    def steps(self) -> Columns:
        """The stored steps `[T, n_envs, ...]` of each column, oldest step first."""
        rows = self.at(torch.arange(self.n_envs), torch.arange(self.size).unsqueeze(-1))
        return {name: self.take(name, rows) for name in self.columns}

    def ordered_infos(self) -> list[Mapping[str, Any]] | None:
        """The info dicts of the stored steps in the order of `steps`; None if they are not stored."""
        if self.infos is None:
            return None
        rows = self.at(torch.arange(self.n_envs), torch.arange(self.size).unsqueeze(-1)).flatten()
        return [self.infos[row] for row in rows.tolist()]

    def twin(self) -> Store:
        """Another store with the same rows, for a dataset, whose rows are never written."""
        other = Store(self.capacity, self.n_envs, dict(self.columns), dict(self.in_files))
        other.head, other.size, other.cached = self.head, self.size, self.cached
        other.episodes = deepcopy(self.episodes)
        return other

    def append(self, step: Mapping[str, np.ndarray]) -> None:
        """Adds one step of every environment: the values `[n_envs, ...]` of each column.

        They are arrays because NumPy writes one row in a tenth of the time of PyTorch.
        """
        first = self.head * self.n_envs
        for name, value in step.items():
            self.columns[name].numpy()[first : first + self.n_envs] = value
        self.head = (self.head + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)
        self.episodes.extend(torch.from_numpy(step["terminals"]).unsqueeze(0))

    def keep_infos(self, infos: Sequence[Mapping[str, Any]]) -> None:
        """Stores the info dicts of the step that `append` adds next, one for each environment."""
        if self.infos is None:
            self.infos = [{}] * (self.capacity * self.n_envs)
        self.infos[self.head * self.n_envs : (self.head + 1) * self.n_envs] = list(infos)

    def end_episodes(self) -> None:
        """Ends the running episode of every stream at its newest step, as a time limit does."""
        if self.size > 0:
            newest = (self.head - 1) % self.capacity * self.n_envs
            self.columns["terminals"][newest : newest + self.n_envs] = 1
            self.episodes.end()

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: only the rows that were written, so that a nearly empty store makes a small file."""
        rows = self.size * self.n_envs
        return {**self.__dict__, "columns": {name: column[:rows].clone() for name, column in self.columns.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.size < self.capacity:
            written = self.columns
            widths = {
                name: (column.shape[1] if column.ndim > 1 else 0, column.dtype) for name, column in written.items()
            }
            self.columns = Store.empty(self.capacity, self.n_envs, widths).columns
            for name, column in written.items():
                self.columns[name][: len(column)] = column

    def starts(self, length: int) -> int:
        """Number of windows of which `length` steps must be stored."""
        return max(self.size - length + 1, 0) * self.n_envs

    def rows(self, starts: Tensor, offsets: Tensor) -> Tensor:
        """Rows `[B, H]` of the steps that are `offsets` `[H]` steps after the windows' first steps `starts` `[B]`.

        After the newest stored step of a stream its row is repeated.
        """
        if self.n_envs == 1 and (self.size < self.capacity or self.head == 0):
            return (starts.unsqueeze(-1) + offsets).clamp_(max=self.size - 1)
        env, time = starts % self.n_envs, starts // self.n_envs
        return self.at(env.unsqueeze(-1), (time.unsqueeze(-1) + offsets).clamp_(max=self.size - 1))

    def first_rows(self, starts: np.ndarray) -> np.ndarray:
        """Rows of the first steps of windows, `[B]`."""
        if self.size < self.capacity or self.head == 0:
            return starts
        return (starts + self.head * self.n_envs) % (self.capacity * self.n_envs)

    def next_rows(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the steps after those in the rows `rows` `[B]`; the newest step of a stream has none after it, and
        its own row is returned."""
        newest = (self.head - 1) % self.capacity
        following = (rows + self.n_envs) % (self.capacity * self.n_envs)
        return np.where(rows // self.n_envs == newest, rows, following)

    def newest(self, starts: Tensor, offsets: Tensor) -> Tensor:
        """Whether the steps `rows(starts, offsets)` are the newest ones of their streams, `[B, H]` bool."""
        return (starts // self.n_envs).unsqueeze(-1) + offsets >= self.size - 1

    def at(self, env: Tensor, time: Tensor) -> Tensor:
        """Rows of the steps `time`, counted from the oldest stored step, of the streams `env`."""
        oldest = self.head if self.size == self.capacity else 0
        return (oldest + time) % self.capacity * self.n_envs + env

    def locate(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Streams of rows, and their steps counted from the oldest stored step: the inverse of `at`."""
        oldest = self.head if self.size == self.capacity else 0
        return rows % self.n_envs, (rows // self.n_envs - oldest) % self.capacity

    def take(self, name: str, rows: Tensor) -> Tensor:
        """The rows `rows` `[*]` of a column; `index_select` takes half of the time of indexing with a tensor."""
        if name in self.in_files:
            return self.in_files[name].take(rows.flatten().numpy()).view(*rows.shape, -1)
        column = self.columns[name]
        return column.index_select(0, rows.flatten()).view(*rows.shape, *column.shape[1:])

    def take_windows(self, name: str, rows: Tensor) -> Tensor:
        """The rows of windows `[B, H]` of a column `[rows, width]`, as `[B, H, width]`.

        The rows of a window follow one another, and the last of them may be repeated. From a file the rows of a window
        are read at once.
        """
        if name not in self.in_files:
            return self.take(name, rows)
        length = min(rows.shape[1], self.size)
        first = rows[:, 0].clamp(max=self.size - length)
        steps = (rows - first.unsqueeze(-1)).unsqueeze(-1)
        return self.in_files[name].take(first.numpy(), length).view(len(rows), length, -1).take_along_dim(steps, 1)

    def windows(
        self,
        rows: Tensor,
        powers: Tensor,
        rewards: Tensor | None = None,
        masks: Tensor | None = None,
        newest: Tensor | None = None,
    ) -> Windows:
        """Summaries of windows.

        A window extends to the end of its episode. A window that is cut also stops where bootstrapping stops, so that
        its return is one of the MDP in which single steps are learned.

        Args:
            rows: rows of the windows' steps, `[B, H]`.
            powers: discounts of the steps, gamma^j, `[H]`.
            rewards: rewards `[B, H]` that replace the stored ones.
            masks: masks `[B, H]` that replace the stored ones.
            newest: whether a step is the newest one of its stream, `[B, H]` bool. If given, windows are cut, and none
                continues after such a step.
        """
        ends = self.columns["terminals"][rows]
        masks = self.columns["masks"][rows] if masks is None else masks
        if newest is not None:
            ends = ((ends > 0) | (masks == 0) | newest).float()
        inside = torch.ones_like(ends)
        inside[:, 1:] = 1 - ends[:, :-1].cummax(-1).values
        total = ((self.columns["rewards"][rows] if rewards is None else rewards) * powers * inside).sum(-1)
        steps = inside.sum(-1).long()
        last = rows.gather(1, steps.unsqueeze(-1) - 1).squeeze(1)
        valid = inside[:, -1] if newest is None else torch.ones_like(total)
        return Windows(total, torch.where(inside > 0, masks, 1.0).amin(-1), last, valid, steps)

    def cache_windows(self, gamma: float, length: int, horizon: int, *, cut: bool) -> None:
        """Computes all windows once, for a store of one stream that no longer changes.

        Args:
            gamma: discount per step.
            length: number of steps of a window.
            horizon: number of actions in a chunk.
            cut: whether windows are cut, see `windows`.
        """
        count, offsets, powers = self.starts(1 if cut else length), torch.arange(length), discount_powers(gamma, length)
        rewards, discounts = np.empty(count, np.float32), np.empty(count, np.float32)
        valid, span = np.empty(count, bool), np.empty(count, np.int16)
        for begin in range(0, count, 65536):
            block = torch.arange(begin, min(begin + 65536, count))
            newest = self.newest(block, offsets) if cut else None
            windows = self.windows(self.rows(block, offsets), powers[:-1], newest=newest)
            part = slice(begin, begin + len(block))
            rewards[part] = windows.rewards
            discounts[part] = powers[windows.steps if cut else -1] * windows.masks
            valid[part], span[part] = windows.valid, windows.last - block
        self.cached = CachedWindows(rewards, discounts, valid, span, self._chunks(horizon))

    def _chunks(self, horizon: int) -> Tensor | None:
        """A view of the actions whose row i holds the actions i to i + horizon - 1; None if they are in a file."""
        if "actions" in self.in_files:
            return None
        actions = self.columns["actions"]
        width = actions.shape[1]
        return actions.as_strided((self.size - horizon + 1, horizon * width), (width, 1))

    def chunks(self, cached: CachedWindows, starts: Tensor, horizon: int) -> Tensor:
        """Actions of the `horizon` steps from each of `starts` `[B]` on, `[B, horizon * A]`."""
        if cached.chunks is not None:
            return cached.chunks.index_select(0, starts)
        return self.in_files["actions"].take(starts.numpy(), horizon)

    def gather(self, name: str, rows: np.ndarray) -> Tensor:
        """The rows `rows` `[B]` of a column, gathered by NumPy, which is faster than PyTorch on contiguous rows."""
        if name in self.in_files:
            return self.in_files[name].take(rows)
        return torch.from_numpy(self.columns[name].numpy().take(rows, 0))


def mask_of_steps(actions: Tensor, steps: Tensor, horizon: int) -> Tensor:
    """1 for the coordinates of chunks `[B, horizon * A]` in their first `steps` `[B]` actions, 0 for the others."""
    if horizon == 1:
        return torch.ones_like(actions)
    return _masks(horizon, actions.shape[-1] // horizon, actions.dtype, actions.device).index_select(0, steps.long())


@cache
def _masks(horizon: int, action_dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The mask of each number of steps from 0 to `horizon`, `[horizon + 1, horizon * action_dim]`."""
    inside = torch.ones(horizon + 1, horizon, dtype=dtype, device=device).tril(-1)
    return inside.repeat_interleave(action_dim, -1)


def discount_powers(gamma: float, length: int) -> Tensor:
    """Powers of the discount: gamma^j for j from 0 to `length`, `[length + 1]`."""
    return torch.tensor([gamma**j for j in range(length + 1)], dtype=torch.float32)
