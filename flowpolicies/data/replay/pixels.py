"""Images: stacking of the last frames when transitions are sampled, and random crops.

Both follow `Dataset.sample` in `utils/datasets.py` of https://github.com/ColinQiyangLi/qc.
"""

from __future__ import annotations

from collections import deque
from typing import Any, final

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Space
from torch import Tensor

from flowpolicies.data.dataset.rows import LazyColumn
from flowpolicies.data.replay.on_device import moved
from flowpolicies.spaces.layout import has_channels_last, observation_layout

CROP_PADDING = 3
"""Largest shift of an image by a random crop, in pixels, in each direction."""


@final
class TensorColumn:
    """A column of flat rows in memory.

    Args:
        rows: the values, `[N, width]`.
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def take(self, rows: np.ndarray, count: int = 1) -> Tensor:
        """Copies rows, see `LazyColumn`."""
        index = torch.from_numpy(np.asarray(rows, np.int64)).unsqueeze(-1) + torch.arange(count)
        return self.rows.index_select(0, index.flatten()).view(len(rows), -1)


@final
class StackedFrames:
    """A column of stacked frames, oldest first, composed of columns with one frame per row to save memory.

    At the beginning of a trajectory its first frame is repeated. The next observation of a row consists of the last
    `count - 1` frames of its observation and the frame after them.

    Args:
        frames: the column of single observations.
        following: the column of single next observations, if this is a column of next observations; None: if it is a
            column of observations.
        ends: last row of each trajectory, ascending.
        count: number of frames in an observation.
    """

    def __init__(self, frames: LazyColumn, following: LazyColumn | None, ends: np.ndarray, count: int) -> None:
        self.frames, self.following, self.count = frames, following, count
        self.firsts = np.append(0, ends[:-1] + 1)

    def take(self, rows: np.ndarray, count: int = 1) -> Tensor:
        """Composes rows, see `LazyColumn`; `count` must be 1."""
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
    """Wrapper of an environment whose observations become its last images, concatenated along the channels.

    The oldest image comes first. At the beginning of an episode the first image is repeated.

    Args:
        env: an environment whose observations are images with the channels first.
        frames: number of images in an observation.

    Raises:
        ValueError: if observations are something else.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], frames: int) -> None:
        super().__init__(env)
        self.observation_space = stacked_space(env.observation_space, frames)
        self._frames: deque[np.ndarray] = deque(maxlen=frames)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment; the first image is repeated."""
        image, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([image] * (self._frames.maxlen or 1))
        return np.concatenate(self._frames), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment; the newest image replaces the oldest one."""
        image, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(image)
        return np.concatenate(self._frames), reward, terminated, truncated, info


def stacked_space(space: Space[Any], frames: int) -> Space[Any]:
    """The space of `frames` images that are concatenated along the channels.

    Raises:
        ValueError: if `frames` is below 1, or the space is not a Box of images with the channels first.
    """
    if frames == 1:
        return space
    if frames < 1:
        raise ValueError(f"frame_stack must be at least 1, got {frames}.")
    if not isinstance(space, Box) or not observation_layout(space)[0].image or has_channels_last(space):
        raise ValueError(
            f"frame_stack={frames} needs observations that are one image (uint8, channels first), but the space is "
            f"{space}. Use frame_stack=1, or give the environment images [C, H, W]."
        )
    return Box(np.repeat(space.low[None], frames, 0).reshape(-1, *space.shape[1:]), 255, dtype=np.uint8)


def frames_between(single: Space[Any], stacked: Space[Any]) -> int:
    """How many images of the space `single` make up one observation of `stacked`; 1 if these are not images."""
    if not isinstance(single, Box) or not isinstance(stacked, Box) or len(stacked.shape) != 3:
        return 1
    divides = single.shape[1:] == stacked.shape[1:] and stacked.shape[0] % single.shape[0] == 0
    return stacked.shape[0] // single.shape[0] if divides else 1


def random_crops(images: Tensor, offsets: Tensor) -> Tensor:
    """Shifts each image by its offset; pixels from outside of the image are those of its edge.

    This is a crop from the image after padding by `CROP_PADDING` pixels of the edge, as in `random_crop` of the
    reference.

    Args:
        images: `[B, C, H, W]`.
        offsets: rows and columns `[B, 2]` between 0 and `2 * CROP_PADDING`; `CROP_PADDING` means no shift.
    """
    height, width = images.shape[-2:]
    offsets = moved(offsets, images.device) - CROP_PADDING
    rows = (torch.arange(height, device=images.device) + offsets[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + offsets[:, 1:]).clamp(0, width - 1)
    # One gather over flat images is several times faster than two gathers, one along each axis.
    pixels = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    flat = images.flatten(2)
    return flat.gather(2, pixels[:, None].expand(flat.shape)).view(images.shape)


def crop_observations(space: Space[Any], flat: Tensor, offsets: Tensor) -> Tensor:
    """Applies `random_crops` to the images in flat observations `[B, O]`; other parts stay as they are."""
    layout = observation_layout(space)
    parts = list(torch.split(flat, [int(np.prod(entry.shape)) for entry in layout], -1))
    for i, entry in enumerate(layout):
        if entry.image:
            parts[i] = random_crops(parts[i].reshape(-1, *entry.shape), offsets).flatten(1)
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
