"""Minibatches of few rows, for equations that are worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from flowpolicies.core import Batch


def column(*values: float) -> Tensor:
    """One value per row, `[B, 1]`."""
    return torch.tensor(values).unsqueeze(-1)


def batch(actions: Tensor, **columns: Tensor) -> Batch:
    """Rows with these actions `[B, A]` and columns; otherwise states 0 `[B, 1]`, reward 0, discount 1, all valid."""
    states, ones = torch.zeros_like(actions[:, :1]), torch.ones_like(actions[:, 0])
    plain = Batch(states, actions, states, torch.zeros_like(actions), 0 * ones, ones, ones, torch.ones_like(actions))
    return plain._replace(**columns)
