"""Rotation of the shards of a dataset: a batch comes from one shard, and the shards take turns.

The references do this because they hold one file of a large dataset in memory at a time: `main.py` of
https://github.com/ColinQiyangLi/qc (`dataset_replace_interval`) loads the next file every 1,000 updates.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.replay.store import Store


@final
class ShardRotation:
    """Chooses the shard that a batch is drawn from.

    Args:
        every: number of batches from one shard before the next shard is used.
        dataset: `provenance["shard_ends"]` holds, for each shard, the row after its last one; without that entry the
            whole dataset is one shard.
        length: number of steps of a window.

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
        """The windows, or with `episodes` the episodes, of the shard that is used after `batches` batches.

        Returns:
            The number of the first window (or episode) of the shard, and how many it has.
        """
        number = batches // self.every % (len(self.bounds) - 1)
        begin, end = self.bounds[number : number + 2]
        if not episodes:
            return begin, end - begin - self.length + 1
        first, last = torch.searchsorted(store.episodes.table()[1].contiguous(), torch.tensor([begin, end])).tolist()
        return first, last - first
