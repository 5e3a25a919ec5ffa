"""Windows whose episode is drawn uniformly, whatever its length (rql_diffusion_family 1.3)."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor


class EpisodeWindows(NamedTuple):
    """Windows of consecutive steps that stay inside one episode."""

    stream: Tensor
    """[B], the stream that the episode belongs to."""
    steps: Tensor
    """[B, n], counted from the oldest step kept; the episode's last step is repeated beyond its end."""
    inside: Tensor
    """[B, n], 1, or 0 where the last step is repeated."""


@final
class Episodes:
    """Where the episodes of some streams lie, kept up to date while rings fill and overwrite themselves.

    An episode that still runs ends, for now, at the newest step; one whose beginning was overwritten begins at the
    oldest step kept.

    Args:
        capacity: steps that each stream keeps.
        n_envs: number of streams.
    """

    def __init__(self, capacity: int, n_envs: int) -> None:
        self.capacity, self.recorded = capacity, 0
        self.running = torch.zeros(n_envs, dtype=torch.long)
        self.ended = torch.zeros(3, 0, dtype=torch.long)
        self._table: Tensor | None = None

    @property
    def oldest(self) -> int:
        """The oldest step kept, counted from the first ever recorded."""
        return max(self.recorded - self.capacity, 0)

    def extend(self, terminals: Tensor) -> None:
        """Further steps of every stream `[T, n_envs]`: 1 on the last step of an episode."""
        stream, time = terminals.T.nonzero(as_tuple=True)
        last = time + self.recorded
        self.recorded += len(terminals)
        self._table = None
        if len(stream) == 0:
            return
        newest_stream = stream.diff(prepend=stream.new_tensor([-1])) > 0
        first = torch.where(newest_stream, self.running[stream], last.roll(1) + 1)
        self.running.scatter_reduce_(0, stream, last + 1, "amax")
        ended = torch.cat([self.ended, torch.stack([stream, first, last])], 1)
        self.ended = ended[:, ended[2] > self.oldest]

    def end(self) -> None:
        """Ends what runs in every stream at the newest step."""
        stream = (self.running < self.recorded).nonzero().squeeze(-1)
        ended = torch.stack([stream, self.running[stream], torch.full_like(stream, self.recorded - 1)])
        self.ended = torch.cat([self.ended, ended], 1)
        self.running.fill_(self.recorded)
        self._table = None

    def table(self) -> Tensor:
        """Stream, first and last step of each episode in which a window can start, `[3, N]`.

        Those are the episodes of at least two kept steps. Steps are counted from the oldest one kept.
        """
        if self._table is None:
            newest = torch.full_like(self.running, self.recorded - 1)
            running = torch.stack([torch.arange(len(self.running)), self.running, newest])
            table = torch.cat([self.ended, running], 1)
            table[1:] -= self.oldest
            table[1].clamp_(min=0)
            self._table = table[:, table[2] > table[1]]
        return self._table

    def starts(self) -> int:
        """How many windows there are: one from every step of an episode but its last."""
        _, first, last = self.table()
        return int((last - first).sum())

    def windows(self, chosen: Tensor, length: int, generator: torch.Generator) -> EpisodeWindows:
        """A window of `length` steps of each chosen episode (columns of `table`, `[B]`), never from its last step."""
        stream, first, last = self.table()[:, chosen]
        uniform = torch.rand(len(chosen), generator=generator, dtype=torch.float64)
        start = first + (uniform * (last - first)).long()
        steps, end = start.unsqueeze(-1) + torch.arange(length), last.unsqueeze(-1)
        return EpisodeWindows(stream, steps.minimum(end), (steps <= end).float())


def choose_episodes(count: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """`[B]` of 0..count - 1, without replacement if there are more than B of them."""
    if count > batch_size:
        return torch.randperm(count, generator=generator)[:batch_size]
    return torch.randint(count, (batch_size,), generator=generator)
