"""Images: observations of several frames, put together when they are sampled, and random crops (flow_family 2.4)."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol, final

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Space
from torch import Tensor

from flowpolicies.spaces.layout import observation_layout

CROP_PADDING = 3
"""Pixels by which a random crop moves an image at most, in either direction."""


class Column(Protocol):
    """Flat rows that are read when they are needed."""

    def take(self, rows: np.ndarray, count: int = 1) -> Tensor:
        """`count` rows from each of `rows` `[B]` on, `[B, count * width]`."""


@final
class TensorColumn:
    """Flat rows in memory.

    Args:
        rows: `[N, width]`.
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def take(self, rows: np.ndarray, count: int = 1) -> Tensor:
        """See `Column`."""
        index = torch.from_numpy(np.asarray(rows, np.int64)).unsqueeze(-1) + torch.arange(count)
        return self.rows.index_select(0, index.flatten()).view(len(rows), -1)


@final
class StackedFrames:
    """Rows of k frames each, oldest first, of columns that hold one frame per row: memory does not grow with k.

    Before the first frame of a trajectory that frame is repeated. Next observations are the same frames one step on.

    Args:
        frames: the observations.
        following: the next observations, for a column of those; None: for the observations themselves.
        ends: last row of each trajectory, ascending.
        count: number of frames.
    """

    def __init__(self, frames: Column, following: Column | None, ends: np.ndarray, count: int) -> None:
        self.frames, self.following, self.count = frames, following, count
        self.firsts = np.append(0, ends[:-1] + 1)

    def take(self, rows: np.ndarray, count: int = 1) -> Tensor:
        """See `Column`; `count` must be 1."""
        first = self.firsts[np.searchsorted(self.firsts, rows, side="right") - 1]
        ages = np.arange(self.count - 1, -1, -1) - (self.following is not None)
        ages[-1] = 0
        wanted = np.maximum(rows[:, None] - ages, first[:, None])
        frames = self.frames.take(wanted.reshape(-1)).view(len(rows), self.count, -1)
        if self.following is not None:
            frames[:, -1] = self.following.take(rows)
        return frames.flatten(1)


@final
class FrameStack(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose observations are its last k images, channels after channels, oldest first.

    At the beginning of an episode the first image is repeated.

    Raises:
        ValueError: unless observations are images with their channels first.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], frames: int) -> None:
        super().__init__(env)
        self.observation_space = stacked_space(env.observation_space, frames)
        self._frames: deque[np.ndarray] = deque(maxlen=frames)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode."""
        image, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([image] * (self._frames.maxlen or 1))
        return np.concatenate(self._frames), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step."""
        image, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(image)
        return np.concatenate(self._frames), reward, terminated, truncated, info


def stacked_space(space: Space[Any], frames: int) -> Space[Any]:
    """The space of `frames` observations, one after the other along the channels.

    Raises:
        ValueError: for fewer than one frame, or if the space is not one of images with their channels first.
    """
    if frames == 1:
        return space
    if frames < 1:
        raise ValueError(f"frame_stack={frames}: an observation has at least one frame.")
    if not isinstance(space, Box) or not observation_layout(space)[0].image:
        raise ValueError(
            f"frame_stack={frames} is for observations that are one image (uint8, channels first); these are {space}. "
            "Use frame_stack=1."
        )
    return Box(np.repeat(space.low[None], frames, 0).reshape(-1, *space.shape[1:]), 255, dtype=np.uint8)


def frames_between(single: Space[Any], stacked: Space[Any]) -> int:
    """How many images of the first space make an observation of the second; 1 if these are no images."""
    if not isinstance(single, Box) or not isinstance(stacked, Box) or len(stacked.shape) != 3:
        return 1
    whole = single.shape[1:] == stacked.shape[1:] and stacked.shape[0] % single.shape[0] == 0
    return stacked.shape[0] // single.shape[0] if whole else 1


def random_crops(images: Tensor, offsets: Tensor) -> Tensor:
    """Every image moved by its offset; what comes in from outside are the pixels of the edge.

    Args:
        images: `[B, C, H, W]`.
        offsets: `[B, 2]` rows and columns, 0 to `2 * CROP_PADDING`; `CROP_PADDING` leaves an image as it is.
    """
    height, width = images.shape[-2:]
    offsets = offsets.to(images.device) - CROP_PADDING
    rows = (torch.arange(height, device=images.device) + offsets[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + offsets[:, 1:]).clamp(0, width - 1)
    # One gather over flat images is several times faster than one along each of the two axes.
    pixels = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    flat = images.flatten(2)
    return flat.gather(2, pixels[:, None].expand(flat.shape)).view(images.shape)


def crop_observations(space: Space[Any], flat: Tensor, offsets: Tensor) -> Tensor:
    """`random_crops` of every image in flat observations `[B, O]`; what is no image stays."""
    layout = observation_layout(space)
    parts = list(torch.split(flat, [int(np.prod(entry.shape)) for entry in layout], -1))
    for i, entry in enumerate(layout):
        if entry.image:
            parts[i] = random_crops(parts[i].reshape(-1, *entry.shape), offsets).flatten(1)
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
