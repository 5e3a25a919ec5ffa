"""Columns of transitions, as streams of steps in the order of time, and windows of consecutive steps."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from flowpolicies.data.replay.episodes import Episodes
from flowpolicies.data.replay.pixels import Column


class Windows(NamedTuple):
    """What windows of H steps come to (flow_family 2.4)."""

    rewards: Tensor
    """[B], discounted sum up to the end of the episode."""
    masks: Tensor
    """[B], 0 if the episode terminated inside the window."""
    last: Tensor
    """[B], row of the last step that belongs to the episode."""
    valid: Tensor
    """[B], 1 if all H steps belong to one episode; an end exactly at the last step counts as inside."""


class CachedWindows(NamedTuple):
    """All windows of a store that no longer changes, by their first row; numpy gathers contiguous rows fastest."""

    rewards: np.ndarray
    """[N], as in `Windows`."""
    discounts: np.ndarray
    """[N], gamma^H times the mask."""
    valid: np.ndarray
    """[N] bool, as in `Windows`."""
    span: np.ndarray
    """[N] int16, rows from the first one to `Windows.last`."""
    chunks: Tensor | None
    """[M, horizon * A], a view of the actions; None if they lie in a file."""


@final
class Store:
    """Rows of transitions of `n_envs` interleaved streams: row `time * n_envs + env`; a ring once it is full."""

    def __init__(
        self, capacity: int, n_envs: int, columns: dict[str, Tensor], in_files: dict[str, Column] | None = None
    ) -> None:
        self.capacity, self.n_envs, self.columns, self.in_files = capacity, n_envs, columns, in_files or {}
        self.head, self.size = 0, 0
        self.cached: CachedWindows | None = None
        self.episodes = Episodes(capacity, n_envs)

    @classmethod
    def empty(cls, capacity: int, n_envs: int, widths: dict[str, tuple[int, torch.dtype]]) -> Store:
        """Zeroed columns; numpy's zeros are committed by the operating system only when written."""
        dtypes = {torch.uint8: np.uint8, torch.float32: np.float32}
        rows = capacity * n_envs
        shape = {name: (rows, width) if width else (rows,) for name, (width, _) in widths.items()}
        columns = {name: torch.from_numpy(np.zeros(shape[name], dtypes[dtype])) for name, (_, dtype) in widths.items()}
        return cls(capacity, n_envs, columns)

    def append(self, step: dict[str, Tensor]) -> None:
        """One step of every environment, `[n_envs, ...]` each."""
        first = self.head * self.n_envs
        for name, value in step.items():
            self.columns[name][first : first + self.n_envs] = value
        self.head = (self.head + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)
        self.episodes.extend(step["terminals"].unsqueeze(0))

    def end_episodes(self) -> None:
        """Ends what runs in every stream, as a time limit would."""
        if self.size > 0:
            newest = (self.head - 1) % self.capacity * self.n_envs
            self.columns["terminals"][newest : newest + self.n_envs] = 1
            self.episodes.end()

    def __getstate__(self) -> dict[str, Any]:
        """Only the rows that were written: a ring that is nearly empty makes a small file."""
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
        """How many windows of `length` steps there are."""
        return max(self.size - length + 1, 0) * self.n_envs

    def rows(self, starts: Tensor, offsets: Tensor) -> Tensor:
        """Rows of the steps `offsets` `[H]` after each of `starts` `[B]`, in the order of time: `[B, H]`."""
        if (self.n_envs == 1 and self.size < self.capacity) or self.cached is not None:
            return starts.unsqueeze(-1) + offsets
        env, time = starts % self.n_envs, starts // self.n_envs
        return self.at(env.unsqueeze(-1), time.unsqueeze(-1) + offsets)

    def at(self, env: Tensor, time: Tensor) -> Tensor:
        """Rows of the steps `time` of the streams `env`, counted from the oldest step kept."""
        oldest = self.head if self.size == self.capacity else 0
        return (oldest + time) % self.capacity * self.n_envs + env

    def take(self, name: str, rows: Tensor) -> Tensor:
        """A column at `rows` `[*]`; `index_select` takes about half of the time of indexing with a tensor."""
        if name in self.in_files:
            return self.in_files[name].take(rows.flatten().numpy()).view(*rows.shape, -1)
        column = self.columns[name]
        return column.index_select(0, rows.flatten()).view(*rows.shape, *column.shape[1:])

    def windows(
        self, rows: Tensor, powers: Tensor, rewards: Tensor | None = None, masks: Tensor | None = None
    ) -> Windows:
        """Sums over the windows `rows` `[B, H]`; `powers` is gamma^j; `rewards` and `masks` replace the stored ones."""
        ends = self.columns["terminals"][rows]
        inside = torch.ones_like(ends)
        inside[:, 1:] = 1 - ends[:, :-1].cummax(-1).values
        total = ((self.columns["rewards"][rows] if rewards is None else rewards) * powers * inside).sum(-1)
        masks = torch.where(inside > 0, self.columns["masks"][rows] if masks is None else masks, 1.0).amin(-1)
        last = rows.gather(1, inside.sum(-1, keepdim=True).long() - 1).squeeze(1)
        return Windows(total, masks, last, inside[:, -1])

    def cache_windows(self, powers: Tensor, horizon: int, discount: float) -> None:
        """Computes every window once, for data that no longer change; `discount` is gamma^H."""
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
        """A chunk is a stretch of memory: row i of this view is the actions i to i + horizon - 1, without a copy."""
        if "actions" in self.in_files:
            return None
        actions = self.columns["actions"]
        width = actions.shape[1]
        return actions.as_strided((self.size - horizon + 1, horizon * width), (width, 1))

    def chunks(self, cached: CachedWindows, starts: Tensor, horizon: int) -> Tensor:
        """The actions of `horizon` steps from each of `starts` `[B]` on, `[B, horizon * A]`."""
        if cached.chunks is not None:
            return cached.chunks.index_select(0, starts)
        return self.in_files["actions"].take(starts.numpy(), horizon)

    def gather(self, name: str, rows: np.ndarray) -> Tensor:
        """A column at `rows` `[B]`; numpy gathers contiguous rows fastest."""
        if name in self.in_files:
            return self.in_files[name].take(rows)
        return torch.from_numpy(self.columns[name].numpy().take(rows, 0))
