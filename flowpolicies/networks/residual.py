"""Networks of IDQL.

Hansen-Estruch et al., "IDQL", https://arxiv.org/abs/2304.10573
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from flowpolicies.networks.diffusion import EmbedLevel
from flowpolicies.networks.mlp import ACTIVATIONS, MLP, Activation, Dense, LayerNorm


@final
class ResidualBlock(nn.Module):
    """x + W_2 silu(W_1 LN(mask x)), with a hidden width of four times that of x.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import ResidualBlock
        >>> ResidualBlock(64, layer_norm=True)(torch.zeros(256, 64)).shape
        torch.Size([256, 64])
    """

    def __init__(self, dim: int, layer_norm: bool) -> None:
        super().__init__()
        self.norm = LayerNorm(dim) if layer_norm else None
        self.widen = Dense(dim, 4 * dim, initialization="lecun")
        self.narrow = Dense(4 * dim, dim, initialization="lecun")

    def forward(self, x: Tensor, *masks: Tensor) -> Tensor:
        h = x
        for mask in masks:
            h = h * mask
        h = h if self.norm is None else self.norm(h)
        return x + self.narrow(ACTIVATIONS["silu"](self.widen(h)))  # type: ignore[no-any-return]


@final
class ResidualNoisePrediction(nn.Module):
    """eps(s, x, t): (observations `[*, O]`, x `[*, A]`, index `[*, 1]`) -> predicted noise `[*, A]`.

    A dense layer on [x, s, MLP(phi(t))], residual blocks, SiLU, and a linear output. For dropout it takes one more
    input, factors `[*, blocks, width]` of the input of each block, which the caller draws.

    Args:
        hidden_dims: one width per residual block, all equal.
        time_dim: number of Fourier features of the index, with trained frequencies.
        time_hidden_dims: widths of the MLP on these features, whose last layer is not activated.

    Raises:
        ValueError: if the widths differ.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import ResidualNoisePrediction
        >>> predict = ResidualNoisePrediction(3, 1, hidden_dims=(64, 64, 64))
        >>> predict(torch.zeros(256, 3), torch.zeros(256, 1), torch.ones(256, 1)).shape
        torch.Size([256, 1])
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        hidden_dims: Sequence[int] = (256, 256, 256),
        layer_norm: bool = True,
        time_dim: int = 128,
        time_hidden_dims: Sequence[int] = (256, 256),
    ) -> None:
        super().__init__()
        if len(set(hidden_dims)) != 1:
            raise ValueError(f"residual blocks need one width, such as (256, 256, 256), got {tuple(hidden_dims)}")
        width, (*hidden, out) = hidden_dims[0], time_hidden_dims
        self.embed = EmbedLevel("learned_fourier", time_dim)
        self.time = MLP(time_dim, hidden, out, activation="silu")
        self.input = Dense(action_dim + observation_dim + out, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, layer_norm) for _ in hidden_dims)
        self.output = Dense(width, action_dim)

    def forward(self, observations: Tensor, x: Tensor, t: Tensor, *masks: Tensor) -> Tensor:
        h = self.input(torch.cat([x, observations, self.time(self.embed(t))], -1))
        for i, block in enumerate(self.blocks):
            h = block(h, *(mask[..., i, :] for mask in masks))
        return self.output(ACTIVATIONS["silu"](h))  # type: ignore[no-any-return]


@final
class InputNormValue(nn.Module):
    """State value with one LayerNorm, on the input: observations `[*, O]` -> `[*]`. `action_dim` is not used.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import InputNormValue
        >>> InputNormValue(3, 1, hidden_dims=(64, 64))(torch.zeros(256, 3)).shape
        torch.Size([256])
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        hidden_dims: Sequence[int] = (256, 256),
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.norm = LayerNorm(observation_dim)
        self.net = MLP(observation_dim, hidden_dims, 1, activation=activation)

    def forward(self, observations: Tensor) -> Tensor:
        return self.net(self.norm(observations)).squeeze(-1)  # type: ignore[no-any-return]
