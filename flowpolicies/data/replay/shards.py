"""Shards of a dataset that take turns, as in the references, which hold one file in memory at a time."""

from __future__ import annotations

from typing import final

import numpy as np
import torch

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.replay.store import Store


@final
class Turns:
    """Which shard's turn it is.

    Args:
        every: batches from one shard before the next one's turn comes.
        dataset: `provenance["shard_ends"]` are the rows after the last ones of its shards; without, it is one shard.
        length: steps of a window.

    Raises:
        ValueError: if a shard is shorter than a window.
    """

    def __init__(self, every: int, dataset: TransitionDataset, length: int) -> None:
        self.every, self.length = every, length
        self.bounds: list[int] = [0, *dataset.provenance.get("shard_ends", [len(dataset)])]
        if np.diff(self.bounds).min() < length:
            raise ValueError(
                f"rotate_every={every} takes batches from one shard at a time, and a shard of the dataset is shorter "
                f"than a window of {length} steps. Write larger shards, or leave rotate_every at None."
            )

    def current(self, batches: int, store: Store, *, episodes: bool) -> tuple[int, int]:
        """The first of the windows (or episodes) that are drawn from after so many batches, and how many there are."""
        number = batches // self.every % (len(self.bounds) - 1)
        begin, end = self.bounds[number : number + 2]
        if not episodes:
            return begin, end - begin - self.length + 1
        first, last = torch.searchsorted(store.episodes.table()[1].contiguous(), torch.tensor([begin, end])).tolist()
        return first, last - first
