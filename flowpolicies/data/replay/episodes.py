"""RQL's scheme of windows: an episode is drawn uniformly, whatever its length, then a step in it.

It follows the authors' code of RQL (https://arxiv.org/abs/2606.17551); docs/algorithms/rql.md describes it.
"""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor


class EpisodeWindows(NamedTuple):
    """Windows of consecutive steps that stay inside one episode."""

    stream: Tensor
    """Number of the stream (environment) that the episode belongs to, `[B]`."""
    steps: Tensor
    """Steps of the window, counted from the oldest stored step, `[B, n]`. After its end an episode repeats its last."""
    inside: Tensor
    """Whether the step belongs to the episode (1) or repeats its last step (0), `[B, n]`."""


@final
class Episodes:
    """First and last steps of the episodes in a ring buffer, updated while steps are added and overwritten.

    Each environment is a stream of steps. An episode that has not ended yet counts up to the newest step, and one whose
    beginning was overwritten counts from the oldest stored step on.

    Args:
        capacity: number of steps that each stream stores.
        n_envs: number of streams.
    """

    _sorted: Tensor | None = None  # Missing in the files of older versions.

    def __init__(self, capacity: int, n_envs: int) -> None:
        self.capacity, self.recorded = capacity, 0
        self.running = torch.zeros(n_envs, dtype=torch.long)
        self.ended = torch.zeros(3, 0, dtype=torch.long)
        self._table: Tensor | None = None

    @property
    def oldest(self) -> int:
        """Number of the oldest stored step, counted from the first step that was ever recorded."""
        return max(self.recorded - self.capacity, 0)

    def extend(self, terminals: Tensor) -> None:
        """Records T further steps of every stream; `terminals` `[T, n_envs]` is 1 on the last step of an episode."""
        begin, self._table, self._sorted = self.recorded, None, None
        self.recorded += len(terminals)
        if not terminals.any():
            return
        stream, time = terminals.T.nonzero(as_tuple=True)
        last = time + begin
        newest_stream = stream.diff(prepend=stream.new_tensor([-1])) > 0
        first = torch.where(newest_stream, self.running[stream], last.roll(1) + 1)
        self.running.scatter_reduce_(0, stream, last + 1, "amax")
        ended = torch.cat([self.ended, torch.stack([stream, first, last])], 1)
        self.ended = ended[:, ended[2] > self.oldest]

    def end(self) -> None:
        """Ends the running episode of every stream at the newest step."""
        stream = (self.running < self.recorded).nonzero().squeeze(-1)
        ended = torch.stack([stream, self.running[stream], torch.full_like(stream, self.recorded - 1)])
        self.ended = torch.cat([self.ended, ended], 1)
        self.running.fill_(self.recorded)
        self._table = self._sorted = None

    def table(self) -> Tensor:
        """Stream, first step and last step of each episode in which a window can start, `[3, N]`.

        Those are the episodes with at least two stored steps. Steps are counted from the oldest stored one.
        """
        if self._table is None:
            newest = torch.full_like(self.running, self.recorded - 1)
            running = torch.stack([torch.arange(len(self.running)), self.running, newest])
            table = torch.cat([self.ended, running], 1)
            table[1:] -= self.oldest
            table[1].clamp_(min=0)
            self._table = table[:, table[2] > table[1]]
        return self._table

    def bounds(self, stream: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """First and last stored steps of the episodes of the steps `step` `[B]`, counted from the oldest stored one.

        An episode that has not ended ends at the newest step.
        """
        if self._sorted is None:
            newest = torch.full_like(self.running, self.recorded - 1)
            running = torch.stack([torch.arange(len(self.running)), self.running, newest])
            every = torch.cat([self.ended, running[:, self.running < self.recorded]], 1)
            self._sorted = every[:, (every[0] * (self.recorded + 1) + every[2]).argsort()]
        keys = self._sorted[0] * (self.recorded + 1) + self._sorted[2]
        found = torch.searchsorted(keys, stream * (self.recorded + 1) + step + self.oldest)
        return (self._sorted[1, found] - self.oldest).clamp(min=0), self._sorted[2, found] - self.oldest

    def starts(self) -> int:
        """Number of windows: one from each step of an episode except its last step."""
        _, first, last = self.table()
        return int((last - first).sum())

    def windows(self, chosen: Tensor, length: int, generator: torch.Generator) -> EpisodeWindows:
        """Draws one window of `length` steps from each chosen episode; no window starts at the last step of an episode.

        Args:
            chosen: numbers of episodes, which are columns of `table`, `[B]`.
            length: number of steps of a window.
            generator: source of the random first steps.
        """
        stream, first, last = self.table().index_select(1, chosen)
        uniform = torch.rand(len(chosen), generator=generator, dtype=torch.float64)
        start = first + (uniform * (last - first)).long()
        steps, end = start.unsqueeze(-1) + torch.arange(length), last.unsqueeze(-1)
        return EpisodeWindows(stream, steps.minimum(end), (steps <= end).float())


def choose_episodes(count: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Draws `batch_size` of the numbers 0 to `count - 1`, without replacement if `count` exceeds `batch_size`.

    Every ordered choice has the same probability. The work does not grow with `count`: numbers are drawn until there
    are enough different ones, and those that were drawn before are left out.
    """
    if count <= batch_size:
        return torch.randint(count, (batch_size,), generator=generator)
    if count <= 4 * batch_size:  # Otherwise many numbers would be drawn again, up to all of the last ones.
        return torch.randperm(count, generator=generator)[:batch_size]
    drawn = torch.randint(count, (batch_size + batch_size // 4,), generator=generator)
    while len(first := np.unique(drawn.numpy(), return_index=True)[1]) < batch_size:
        drawn = torch.cat([drawn, torch.randint(count, (batch_size,), generator=generator)])
    return drawn[torch.from_numpy(np.sort(first)[:batch_size])]
