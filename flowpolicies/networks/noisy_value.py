"""V(s, x, t), the value (or the energy) of an action with noise in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from flowpolicies.networks.diffusion import EmbedLevel, LevelEmbedding
from flowpolicies.networks.mlp import ACTIVATIONS, MLP, Activation, Initialization


@final
class NoisyValue(nn.Module):
    """(observations `[*, O]`, x `[*, A]`, level `[*, 1]`) -> `[E, *]`, or `[*]` without an ensemble.

    MLP on [x, s, MLP(phi(t))]; the members of an ensemble share the features of the time.

    Args:
        time_hidden_dims: widths of the MLP on the embedded level.
        time_activate_last: whether its last layer is activated too.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        hidden_dims: Sequence[int] = (256, 256, 256),
        layer_norm: bool = False,
        ensemble: int | None = None,
        activation: Activation = "mish",
        norm_first: bool = False,
        initialization: Initialization = "xavier",
        time_embedding: LevelEmbedding = "sinusoidal",
        time_dim: int = 64,
        time_hidden_dims: Sequence[int] = (128, 64),
        time_activate_last: bool = False,
    ) -> None:
        super().__init__()
        self.embed = EmbedLevel(time_embedding, time_dim)
        *hidden, out = time_hidden_dims
        self.time = MLP(time_dim, hidden, out, activation=activation, initialization=initialization)
        self.activation, self.time_activate_last = activation, time_activate_last
        self.net = MLP(
            action_dim + observation_dim + out,
            hidden_dims,
            1,
            layer_norm=layer_norm,
            ensemble=ensemble,
            activation=activation,
            norm_first=norm_first,
            initialization=initialization,
        )

    def forward(self, observations: Tensor, x: Tensor, t: Tensor) -> Tensor:
        condition = self.time(self.embed(t))
        if self.time_activate_last:
            condition = ACTIVATIONS[self.activation](condition)
        return self.net(torch.cat([x, observations, condition], -1)).squeeze(-1)  # type: ignore[no-any-return]
