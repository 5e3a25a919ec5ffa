"""Networks that are told a noise level: noise predictions of diffusion policies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn

from flowpolicies.networks.mlp import ACTIVATIONS, MLP, Activation, Initialization

LevelEmbedding = Literal["sinusoidal", "learned_fourier", "gaussian_fourier"]
"""sinusoidal (E1): frequencies 10000^{-i/(d/2-1)}. learned_fourier (E2): trained frequencies, initially N(0, 0.2^2).
gaussian_fourier (E3): fixed frequencies from N(0, 30^2). rql_diffusion_family 0.4."""


@final
class EmbedLevel(nn.Module):
    """phi(t) = [cos(t w), sin(t w)], `[*, 1]` -> `[*, dim]`; t is a raw index or a time."""

    frequencies: Tensor

    def __init__(self, embedding: LevelEmbedding, dim: int) -> None:
        super().__init__()
        if dim % 2 or dim < 4:
            raise ValueError(f"time_dim must be even and at least 4 (sines and cosines), got {dim}")
        self.unit = 1.0 if embedding == "sinusoidal" else 2 * math.pi
        if embedding == "sinusoidal":
            exponents = torch.arange(dim // 2) / (dim // 2 - 1)
            self.register_buffer("frequencies", 10_000.0**-exponents, persistent=False)
        elif embedding == "learned_fourier":
            self.frequencies = nn.Parameter(0.2 * torch.randn(dim // 2))
        else:
            self.register_buffer("frequencies", 30.0 * torch.randn(dim // 2))

    def forward(self, t: Tensor) -> Tensor:
        angles = self.unit * t * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], -1)


@final
class NoisePrediction(nn.Module):
    """eps(s, x, t): (observations `[*, O]`, x `[*, A]`, index `[*, 1]`) -> predicted noise `[*, A]`.

    MLP on [x, s, MLP(phi(t))].

    Args:
        time_hidden_dims: widths of the MLP on the embedded index.
        time_activate_last: whether its last layer is activated too.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        hidden_dims: Sequence[int] = (256, 256, 256),
        layer_norm: bool = False,
        activation: Activation = "mish",
        initialization: Initialization = "xavier",
        time_embedding: LevelEmbedding = "sinusoidal",
        time_dim: int = 16,
        time_hidden_dims: Sequence[int] = (32, 16),
        time_activate_last: bool = False,
    ) -> None:
        super().__init__()
        self.embed = EmbedLevel(time_embedding, time_dim)
        *hidden, out = time_hidden_dims
        self.time = MLP(time_dim, hidden, out, activation=activation, initialization=initialization)
        self.activation, self.time_activate_last = activation, time_activate_last
        in_dim = action_dim + observation_dim + out
        self.net = MLP(
            in_dim,
            hidden_dims,
            action_dim,
            layer_norm=layer_norm,
            activation=activation,
            initialization=initialization,
        )

    def forward(self, observations: Tensor, x: Tensor, t: Tensor) -> Tensor:
        condition = self.time(self.embed(t))
        if self.time_activate_last:
            condition = ACTIVATIONS[self.activation](condition)
        return self.net(torch.cat([x, observations, condition], -1))  # type: ignore[no-any-return]
