"""Storage of transitions in columns, and windows of consecutive steps."""

from __future__ import annotations

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
    """Whether all H steps belong to one episode (1, also if it ends exactly with the window) or not (0), `[B]`."""


class CachedWindows(NamedTuple):
    """Summaries of all windows of a store that no longer changes; entry i belongs to the window that starts in row i.

    They are NumPy arrays because NumPy gathers rows faster than PyTorch.
    """

    rewards: np.ndarray
    """Discounted sums of rewards, see `Windows`, `[N]`."""
    discounts: np.ndarray
    """Discount of the value after the window, gamma^H times the mask, `[N]`."""
    valid: np.ndarray
    """Whether the window lies in one episode, see `Windows`, `[N]` bool."""
    span: np.ndarray
    """Number of rows from the first one to `Windows.last`, `[N]` int16."""
    chunks: Tensor | None
    """Action chunks as a view of the actions, `[M, horizon * A]`; None if the actions are in a file."""


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

    def append(self, step: dict[str, Tensor]) -> None:
        """Adds one step of every environment: the values `[n_envs, ...]` of each column."""
        first = self.head * self.n_envs
        for name, value in step.items():
            self.columns[name][first : first + self.n_envs] = value
        self.head = (self.head + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)
        self.episodes.extend(step["terminals"].unsqueeze(0))

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
        """Number of windows of `length` steps."""
        return max(self.size - length + 1, 0) * self.n_envs

    def rows(self, starts: Tensor, offsets: Tensor) -> Tensor:
        """Rows `[B, H]` of the steps that are `offsets` `[H]` steps after the windows' first steps `starts` `[B]`."""
        if (self.n_envs == 1 and self.size < self.capacity) or self.cached is not None:
            return starts.unsqueeze(-1) + offsets
        env, time = starts % self.n_envs, starts // self.n_envs
        return self.at(env.unsqueeze(-1), time.unsqueeze(-1) + offsets)

    def at(self, env: Tensor, time: Tensor) -> Tensor:
        """Rows of the steps `time`, counted from the oldest stored step, of the streams `env`."""
        oldest = self.head if self.size == self.capacity else 0
        return (oldest + time) % self.capacity * self.n_envs + env

    def take(self, name: str, rows: Tensor) -> Tensor:
        """The rows `rows` `[*]` of a column; `index_select` takes half of the time of indexing with a tensor."""
        if name in self.in_files:
            return self.in_files[name].take(rows.flatten().numpy()).view(*rows.shape, -1)
        column = self.columns[name]
        return column.index_select(0, rows.flatten()).view(*rows.shape, *column.shape[1:])

    def windows(
        self, rows: Tensor, powers: Tensor, rewards: Tensor | None = None, masks: Tensor | None = None
    ) -> Windows:
        """Summaries of windows.

        Args:
            rows: rows of the windows' steps, `[B, H]`.
            powers: discounts of the steps, gamma^j, `[H]`.
            rewards: rewards `[B, H]` that replace the stored ones.
            masks: masks `[B, H]` that replace the stored ones.
        """
        ends = self.columns["terminals"][rows]
        inside = torch.ones_like(ends)
        inside[:, 1:] = 1 - ends[:, :-1].cummax(-1).values
        total = ((self.columns["rewards"][rows] if rewards is None else rewards) * powers * inside).sum(-1)
        masks = torch.where(inside > 0, self.columns["masks"][rows] if masks is None else masks, 1.0).amin(-1)
        last = rows.gather(1, inside.sum(-1, keepdim=True).long() - 1).squeeze(1)
        return Windows(total, masks, last, inside[:, -1])

    def cache_windows(self, powers: Tensor, horizon: int, discount: float) -> None:
        """Computes all windows once, for a store that no longer changes.

        Args:
            powers: discounts of the steps of a window, gamma^j, `[H]`.
            horizon: number of actions in a chunk.
            discount: discount of the value after a window, gamma^H.
        """
        self.cached, count = None, self.starts(len(powers))
        rewards, discounts = np.empty(count, np.float32), np.empty(count, np.float32)
        valid, span = np.empty(count, bool), np.empty(count, np.int16)
        for begin in range(0, count, 65536):
            block = torch.arange(begin, min(begin + 65536, count))
            windows = self.windows(block.unsqueeze(-1) + torch.arange(len(powers)), powers)
            part = slice(begin, begin + len(block))
            rewards[part], discounts[part] = windows.rewards, np.float32(discount) * windows.masks.numpy()
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
