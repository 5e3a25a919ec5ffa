"""QGPO's noise prediction: a U-net of dense blocks that are conditioned on observation and time.

Lu et al., https://arxiv.org/abs/2304.12824
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowpolicies.networks.diffusion import EmbedLevel
from flowpolicies.networks.mlp import MLP, Dense


@final
class _Block(nn.Module):
    """silu(L_2 (silu(L_1 x) + L_c silu(c))) + skip(x)."""

    def __init__(self, in_dim: int, out_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.entry = Dense(in_dim, out_dim, initialization="torch")
        self.condition = Dense(condition_dim, out_dim, initialization="torch")
        self.output = Dense(out_dim, out_dim, initialization="torch")
        self.skip = None if in_dim == out_dim else Dense(in_dim, out_dim, initialization="torch")

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = F.silu(self.entry(x)) + self.condition(F.silu(condition))
        return F.silu(self.output(hidden)) + (x if self.skip is None else self.skip(x))


@final
class UNet(nn.Module):
    """eps(s, x, t): (observations `[*, O]`, x `[*, A]`, t `[*, 1]`) -> predicted noise `[*, A]`.

    On the way down, blocks of widths A -> w_1 -> .. -> w_n -> w_n. On the way up, the outputs of both ways at width w_i
    are concatenated and go through a block of width w_{i-1}; those at width w_1 go through a linear layer.

    Args:
        hidden_dims: w_1, .., w_n.
        time_dim: number of features of the time, and of the observation.
        condition_dim: width of the condition that each block receives.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import UNet
        >>> predict = UNet(3, 1, hidden_dims=(64, 32))
        >>> predict(torch.zeros(256, 3), torch.zeros(256, 1), torch.ones(256, 1)).shape
        torch.Size([256, 1])
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        hidden_dims: Sequence[int] = (512, 256, 128),
        time_dim: int = 32,
        condition_dim: int = 128,
    ) -> None:
        super().__init__()
        self.embed = EmbedLevel("gaussian_fourier", time_dim)
        self.time = Dense(time_dim, time_dim, initialization="torch")
        self.observe = Dense(observation_dim, time_dim, initialization="torch")
        self.mix = MLP(2 * time_dim, (condition_dim,), condition_dim, activation="silu", initialization="torch")
        widths = [action_dim, *hidden_dims]
        self.down = nn.ModuleList(_Block(i, o, condition_dim) for i, o in pairwise(widths))
        self.bottom = _Block(widths[-1], widths[-1], condition_dim)
        self.up = nn.ModuleList(_Block(2 * i, o, condition_dim) for i, o in pairwise(hidden_dims[::-1]))
        self.output = Dense(2 * hidden_dims[0], action_dim, initialization="torch")

    def forward(self, observations: Tensor, x: Tensor, t: Tensor) -> Tensor:
        seen = F.silu(self.observe(observations))
        condition = self.mix(torch.cat([self.time(self.embed(t)), seen], -1))
        left = []
        for block in self.down:
            x = block(x, condition)
            left.append(x)
        x = self.bottom(x, condition)
        for block in self.up:
            x = block(torch.cat([left.pop(), x], -1), condition)
        return self.output(torch.cat([left.pop(), x], -1))  # type: ignore[no-any-return]
