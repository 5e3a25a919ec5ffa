"""Networks that take a noise level: noise predictions, and values of noisy actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from flowpolicies.networks.mlp import ACTIVATIONS, MLP, Activation, Initialization

LevelEmbedding = Literal["sinusoidal", "learned_fourier", "gaussian_fourier"]
"""Features of the noise level. sinusoidal: fixed frequencies 10000^{-i/(d/2-1)}. learned_fourier: trained frequencies,
initially N(0, 0.2^2). gaussian_fourier: fixed frequencies from N(0, 30^2)."""


@final
class EmbedLevel(nn.Module):
    """phi(t) = [cos(t w), sin(t w)], `[*, 1]` -> `[*, dim]`; t is a raw index or a time.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import EmbedLevel
        >>> EmbedLevel("sinusoidal", dim=16)(torch.arange(5.0).unsqueeze(-1)).shape
        torch.Size([5, 16])
    """

    frequencies: Tensor

    def __init__(self, embedding: LevelEmbedding, dim: int) -> None:
        super().__init__()
        if dim % 2 or dim < 4:
            raise ValueError(f"time_dim must be even and at least 4 (sines and cosines), got {dim}")
        self.unit = 1.0 if embedding == "sinusoidal" else 2 * math.pi
        if embedding == "sinusoidal":
            exponents = torch.arange(dim // 2, dtype=torch.float32) / (dim // 2 - 1)
            self.register_buffer("frequencies", 10_000.0**-exponents, persistent=False)
        elif embedding == "learned_fourier":
            self.frequencies = nn.Parameter(0.2 * torch.randn(dim // 2, dtype=torch.float32))
        else:
            self.register_buffer("frequencies", 30.0 * torch.randn(dim // 2, dtype=torch.float32))

    def forward(self, t: Tensor) -> Tensor:
        angles = self.unit * t * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], -1)


class LevelMLP(nn.Module):
    """Abstract: an MLP on [x, s, MLP(phi(t))].

    Args:
        out_dim: width of the output.
        time_hidden_dims: widths of the MLP on the embedded level.
        time_activate_last: whether the last layer of that MLP is activated too.
        own_levels: whether each member of an ensemble has an MLP on the embedded level of its own; otherwise they
            share one.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        out_dim: int,
        *,
        hidden_dims: Sequence[int] = (256, 256, 256),
        layer_norm: bool = False,
        ensemble: int | None = None,
        activation: Activation = "mish",
        norm_first: bool = False,
        initialization: Initialization = "xavier",
        time_embedding: LevelEmbedding = "sinusoidal",
        time_dim: int,
        time_hidden_dims: Sequence[int],
        time_activate_last: bool = False,
        own_levels: bool = False,
    ) -> None:
        super().__init__()
        self.embed = EmbedLevel(time_embedding, time_dim)
        *hidden, out = time_hidden_dims
        members = ensemble if own_levels else None
        self.time = MLP(time_dim, hidden, out, ensemble=members, activation=activation, initialization=initialization)
        self.activation, self.time_activate_last = activation, time_activate_last
        self.net = MLP(
            action_dim + observation_dim + out,
            hidden_dims,
            out_dim,
            layer_norm=layer_norm,
            ensemble=ensemble,
            activation=activation,
            norm_first=norm_first,
            initialization=initialization,
        )

    def evaluate(self, observations: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """(observations `[*, O]`, x `[*, A]`, level `[*, 1]`) -> `[*, out]`, `[E, *, out]` with an ensemble."""
        condition = self.time(self.embed(t))
        if self.time_activate_last:
            condition = ACTIVATIONS[self.activation](condition)
        if self.time.ensemble is None:
            return self.net(torch.cat([x, observations, condition], -1))  # type: ignore[no-any-return]
        shared = (part.expand(*condition.shape[:-1], part.shape[-1]) for part in (x, observations))
        return self.net.members(torch.cat([*shared, condition], -1))


@final
class NoisePrediction(LevelMLP):
    """eps(s, x, t): (observations `[*, O]`, x `[*, A]`, index `[*, 1]`) -> predicted noise `[*, A]`.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import NoisePrediction
        >>> predict = NoisePrediction(3, 1, hidden_dims=(64, 64), time_embedding="learned_fourier")
        >>> predict(torch.zeros(256, 3), torch.zeros(256, 1), torch.ones(256, 1)).shape
        torch.Size([256, 1])
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        time_dim: int = 16,
        time_hidden_dims: Sequence[int] = (32, 16),
        **options: Any,
    ) -> None:
        super().__init__(
            observation_dim, action_dim, action_dim, time_dim=time_dim, time_hidden_dims=time_hidden_dims, **options
        )

    def forward(self, observations: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.evaluate(observations, x, t)


@final
class NoisyValue(LevelMLP):
    """V(s, x, t), the value (or the energy) of a noisy action, `[*]`, or `[E, *]` with an ensemble.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import NoisyValue
        >>> value = NoisyValue(3, 1, hidden_dims=(64, 64), ensemble=2)
        >>> value(torch.zeros(256, 3), torch.zeros(256, 1), torch.ones(256, 1)).shape
        torch.Size([2, 256])
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        time_dim: int = 64,
        time_hidden_dims: Sequence[int] = (128, 64),
        **options: Any,
    ) -> None:
        super().__init__(
            observation_dim, action_dim, 1, time_dim=time_dim, time_hidden_dims=time_hidden_dims, **options
        )

    def forward(self, observations: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.evaluate(observations, x, t).squeeze(-1)
