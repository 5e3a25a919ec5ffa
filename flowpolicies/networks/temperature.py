"""Trained scalars: temperatures and multipliers."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor, nn


@final
class Temperature(nn.Module):
    """exp(l) with a trained l, initially log(initial): the weight alpha of the entropy, `[]`. It takes no
    observation.

    Examples:
        >>> from flowpolicies.networks import Temperature
        >>> Temperature(3, 1, initial=2.0)().item()
        2.0
    """

    observes: ClassVar[bool] = False

    def __init__(self, observation_dim: int, action_dim: int, *, initial: float = 1.0) -> None:
        super().__init__()
        self.log_value = nn.Parameter(torch.tensor(initial, dtype=torch.float32).log())

    def forward(self) -> Tensor:
        return self.log_value.exp()


@final
class Multiplier(nn.Module):
    """A trained number, initially `initial`, `[]`: a Lagrange multiplier. It takes no observation.

    Examples:
        >>> from flowpolicies.networks import Multiplier
        >>> Multiplier(3, 1, initial=0.5)().item()
        0.5
    """

    observes: ClassVar[bool] = False

    def __init__(self, observation_dim: int, action_dim: int, *, initial: float = 1.0) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(initial, dtype=torch.float32))

    def forward(self) -> Tensor:
        return self.value
