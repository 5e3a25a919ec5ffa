"""Velocity fields and one-step flow policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from flowpolicies.networks.mlp import MLP, Activation, TimeEmbedding, embed_time, embedding_dim


@final
class VelocityField(nn.Module):
    """v(s, x, t): (observations `[*, O]`, x `[*, A]`, t `[*, 1]`) -> dx/dt `[*, A]`, unbounded.

    With `time_embedding="none"` it is a one-step policy (observations, noise) -> actions.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import VelocityField
        >>> field = VelocityField(3, 1, hidden_dims=(64, 64), time_embedding="fourier")
        >>> field(torch.zeros(256, 3), torch.zeros(256, 1), torch.zeros(256, 1)).shape
        torch.Size([256, 1])
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        hidden_dims: Sequence[int] = (512, 512, 512, 512),
        layer_norm: bool = False,
        time_embedding: TimeEmbedding = "scalar",
        time_dim: int = 64,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.time_embedding, self.time_dim = time_embedding, time_dim
        in_dim = observation_dim + action_dim + embedding_dim(time_embedding, time_dim)
        self.net = MLP(in_dim, hidden_dims, action_dim, layer_norm=layer_norm, activation=activation)

    def forward(self, observations: Tensor, actions: Tensor, *times: Tensor) -> Tensor:
        phi = [embed_time(t, self.time_embedding, self.time_dim) for t in times]
        return self.net(torch.cat([observations, actions, *phi], -1))  # type: ignore[no-any-return]

    def function(self) -> Callable[..., Tensor]:
        """The same function with the weights of this moment, for the steps of a flow; see `MLP.function`."""
        net, embed = self.net.function(), partial(embed_time, embedding=self.time_embedding, time_dim=self.time_dim)
        if self.time_embedding == "fourier":
            return lambda observations, x, t: net(torch.cat([observations, x, embed(t)], -1))
        return lambda *inputs: net(torch.cat(inputs, -1))
