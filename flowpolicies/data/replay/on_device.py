"""Batches on a GPU: from a dataset that is there too, or copied there while the GPU computes.

Which windows are drawn is decided on the CPU in any case, so a run draws the same windows wherever its data are.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor

from flowpolicies.core import Batch
from flowpolicies.data.replay.store import Store, mask_of_steps

DataDevice = Literal["auto", "cpu", "model"]
"""Where the dataset is. cpu: in the memory of the host. model: on the device of the model. auto: there, if that is a
GPU and the dataset takes at most `SHARE` of its free memory."""
SHARE = 0.5


def moved(column: Tensor, device: torch.device) -> Tensor:
    """The column on a device. A copy to a GPU goes through pinned memory, so that the host does not wait for it; torch
    keeps the pinned memory until the copy has ended, and uses it again. It pins no column whose rows share memory, such
    as overlapping windows, so these are copied first."""
    if device.type != "cuda":
        return column.to(device)
    return column.contiguous().pin_memory().to(device, non_blocking=True)


def moved_batch(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device, see `moved`; columns that are on a device of this kind stay as they are."""
    return Batch(*(column if column.device.type == device.type else moved(column, device) for column in batch))


@final
class DeviceWindows:
    """All windows of a dataset on a device, from which batches are gathered there.

    Args:
        store: a store whose windows are cached, with all columns in memory.
        horizon: number of actions in a chunk.
        next_actions: whether batches hold the dataset's next actions.
        cut: whether windows are cut, see `Store.windows`.
        device: where the windows are to be.
    """

    def __init__(self, store: Store, horizon: int, *, next_actions: bool, cut: bool, device: torch.device) -> None:
        cached = store.cached
        assert cached is not None
        self.device, self.horizon, self.next_actions, self.cut = device, horizon, next_actions, cut
        self.size, self.length = store.size, store.size + 1 - len(cached.rewards)
        self.observations, self.next_observations, actions = (
            store.columns[name].to(device) for name in ("observations", "next_observations", "actions")
        )
        width = actions.shape[1]
        self.chunks = actions.as_strided((self.size - horizon + 1, horizon * width), (width, 1))
        self.rewards, self.discounts, valid, self.span = (torch.from_numpy(part).to(device) for part in cached[:4])
        self.valid = valid.float()

    @classmethod
    def where_asked(
        cls, store: Store, wish: DataDevice, device: torch.device, horizon: int, *, next_actions: bool, cut: bool
    ) -> DeviceWindows | None:
        """The windows on the device; None if they are to stay in the memory of the host.

        Raises:
            ValueError: if they cannot be on the device, although "model" asks for it.
        """
        if wish == "cpu" or (wish == "auto" and device.type != "cuda"):
            return None
        if store.cached is None or store.in_files:
            if wish == "auto":
                return None
            raise ValueError(
                'data_device="model" needs a dataset in memory, with the windows and goals that are stored: not a '
                "memory map, compact data, stacked images, goals that are drawn anew, or windows of whole episodes. "
                'Pass data_device="auto".'
            )
        needed = sum(column.nbytes for column in store.columns.values())
        if wish == "auto" and needed > SHARE * torch.cuda.mem_get_info(device)[0]:
            return None
        return cls(store, horizon, next_actions=next_actions, cut=cut, device=device)

    def batch(self, starts: Tensor) -> Batch:
        """The windows that begin in the rows `starts` `[B]`, which are on the CPU."""
        rows = moved(starts, self.device)
        span = self.span.index_select(0, rows).long()
        actions = self.chunks.index_select(0, rows)
        next_actions = actions[:, :0]
        if self.next_actions:
            following = rows + (span + 1 if self.cut else self.length)
            next_actions = self.chunks.index_select(0, following.clamp_(max=self.size - self.horizon))
        return Batch(
            observations=self.observations.index_select(0, rows),
            actions=actions,
            next_observations=self.next_observations.index_select(0, rows + span),
            next_actions=next_actions,
            rewards=self.rewards.index_select(0, rows),
            discounts=self.discounts.index_select(0, rows),
            valid=self.valid.index_select(0, rows),
            action_mask=mask_of_steps(actions, span + 1, self.horizon),
        )
