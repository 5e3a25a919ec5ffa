"""Action values Q(s, a), and values Q(s, x, t) of noisy actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from flowpolicies.networks.mlp import MLP, Activation, Initialization, TimeEmbedding, embed_time, embedding_dim


@final
class Critic(nn.Module):
    """An ensemble of action values as one stacked module: (observations `[*, O]`, actions `[*, A]`) -> `[E, *]`.

    With a time embedding it also takes a flow time `[*, 1]`: the value of a noisy action.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import Critic
        >>> critic = Critic(3, 1, ensemble=10, hidden_dims=(64, 64))
        >>> critic(torch.zeros(256, 3), torch.zeros(256, 1)).shape
        torch.Size([10, 256])
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        hidden_dims: Sequence[int] = (512, 512, 512, 512),
        layer_norm: bool = True,
        ensemble: int = 2,
        time_embedding: TimeEmbedding = "none",
        time_dim: int = 64,
        activation: Activation = "gelu",
        norm_first: bool = False,
        initialization: Initialization = "xavier",
    ) -> None:
        super().__init__()
        self.time_embedding, self.time_dim = time_embedding, time_dim
        in_dim = observation_dim + action_dim + embedding_dim(time_embedding, time_dim)
        self.net = MLP(
            in_dim,
            hidden_dims,
            1,
            layer_norm=layer_norm,
            ensemble=ensemble,
            activation=activation,
            norm_first=norm_first,
            initialization=initialization,
        )

    def forward(self, observations: Tensor, actions: Tensor, *times: Tensor) -> Tensor:
        return self._value(self.net, observations, actions, *times)

    def function(self) -> Callable[..., Tensor]:
        """The same function with the weights of this moment, for gradients along a flow; see `MLP.function`."""
        return partial(self._value, self.net.function())

    def _value(self, net: Callable[[Tensor], Tensor], observations: Tensor, actions: Tensor, *times: Tensor) -> Tensor:
        phi = [embed_time(t, self.time_embedding, self.time_dim) for t in times]
        return net(torch.cat([observations, actions, *phi], -1)).squeeze(-1)
