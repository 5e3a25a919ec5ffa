"""State values V(s)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from flowpolicies.networks.mlp import MLP, Activation, Initialization


@final
class Value(nn.Module):
    """State value: observations `[*, O]` -> `[*]`. `action_dim` is not used.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import Value
        >>> Value(3, 1, hidden_dims=(64, 64))(torch.zeros(256, 3)).shape
        torch.Size([256])
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        hidden_dims: Sequence[int] = (512, 512, 512, 512),
        layer_norm: bool = True,
        activation: Activation = "gelu",
        initialization: Initialization = "xavier",
    ) -> None:
        super().__init__()
        self.net = MLP(
            observation_dim,
            hidden_dims,
            1,
            layer_norm=layer_norm,
            activation=activation,
            initialization=initialization,
        )

    def forward(self, observations: Tensor) -> Tensor:
        return self.net(observations).squeeze(-1)  # type: ignore[no-any-return]
