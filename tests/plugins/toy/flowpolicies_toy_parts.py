"""A sampler, a network, an image encoder and a data source of another package."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from flowpolicies.core import Noise, View
from flowpolicies.data import TransitionDataset
from flowpolicies.samplers import Integrate, Sampler


@final
@dataclass(frozen=True)
class Mellow:
    """Actions of another sampler, scaled and shifted."""

    inner: Sampler = field(default_factory=Integrate)
    """Sampler whose actions are scaled."""
    line: tuple[float, float] = (0.9, 0.0)
    """Slope and intercept of the line that actions go through."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        slope, intercept = self.line
        return (slope * self.inner(nets, observations, noise) + intercept).clamp(-1, 1)


@final
class ToyField(nn.Module):
    """A velocity field with one hidden layer: (observations, x, t) -> dx/dt."""

    def __init__(self, observation_dim: int, action_dim: int, *, widths: tuple[int, ...] = (32,)) -> None:
        super().__init__()
        sizes = [observation_dim + action_dim + 1, *widths]
        hidden = [layer for i, o in pairwise(sizes) for layer in (nn.Linear(i, o), nn.ReLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(sizes[-1], action_dim))

    def forward(self, observations: Tensor, x: Tensor, t: Tensor) -> Tensor:
        velocity: Tensor = self.layers(torch.cat([observations, x, t], -1))
        return velocity


@final
class Brightness(nn.Module):
    """Images `[N, C, H, W]` -> features `[N, 4]` of the mean of each channel."""

    out_dim = 4

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer = nn.Linear(shape[0], self.out_dim)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layer(images.float().mean((-2, -1)) / 255)
        return features


def load(name: str, *, rows: int = 200) -> TransitionDataset:
    """Random transitions in the spaces of Pendulum, in episodes of 50 steps."""
    rng, env, ends = np.random.default_rng(0), make_env(name), np.arange(rows) % 50 == 49
    states = rng.normal(size=(2, rows, 3)).astype(np.float32)
    actions = rng.uniform(-2, 2, (rows, 1)).astype(np.float32)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    return TransitionDataset.from_arrays(
        states[0], actions, rng.normal(size=rows), states[1], terminations=ends & False, truncations=ends, **spaces
    )


def make_env(name: str) -> gymnasium.Env[Any, Any]:
    """The environment of every name of this source is Pendulum."""
    return gymnasium.make("Pendulum-v1")


def open_writer(name: str, *, overwrite: bool = False, env: Any = None) -> Any:
    """A function that writes a dataset to the file NAME.npz, and replaces nothing."""
    path = Path(f"{name}.npz")
    if path.exists():
        raise FileExistsError(f"'{path}' exists.")
    return lambda dataset: dataset.save(path)
