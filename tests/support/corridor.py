"""A corridor in which the way to the goal is known, and critics whose values are written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

LENGTH, GAMMA = 20, 0.9


class Corridor(gym.Env[Any, Any]):
    """A walk from 0 to 20 in steps of up to 1. The reward is -1 in each step, and 0 in the one that arrives."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(0, 0.1, 1).astype(np.float32), 0
        return self.x, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.x, self.t = self.x + np.float32(action), self.t + 1
        arrived = bool(self.x[0] >= LENGTH)
        return self.x, -float(not arrived), arrived, self.t == 60, {"is_success": arrived}


class Known(nn.Module):
    """Two critics that return a given function of position and action, and differ by `apart` times the action."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], apart: float = 0.0) -> None:
        super().__init__()
        self.function, self.apart = function, apart

    def forward(self, observations: Tensor, actions: Tensor, *times: Tensor) -> Tensor:
        value = self.function(observations[..., 0], actions[..., 0])
        return torch.stack([value - self.apart * actions[..., 0], value + self.apart * actions[..., 0]])


def true_value(x: Tensor, a: Tensor) -> Tensor:
    """Value of walking on with steps of 1."""
    return -(1 - GAMMA ** (LENGTH - x).clamp(min=0)) / (1 - GAMMA)
