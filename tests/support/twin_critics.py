"""What the tests of Diffusion-QL and CAC share: rows in double precision, two critics, and their loss in numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from batches import batch
from stubs import view
from torch import Tensor

from flowpolicies.core import Networks

ROWS = 5


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


_states, _actions, _following = normal(torch.Generator().manual_seed(0), 3, ROWS, 2)
BATCH = batch(
    _actions.tanh(),
    observations=_states,
    next_observations=_following,
    rewards=normal(torch.Generator().manual_seed(1), ROWS),
    discounts=torch.tensor([0.9, 0.0, 0.9, 0.9, 0.9], dtype=torch.float64),
    valid=torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64),
)


def critics(s: Any, a: Any) -> list[Any]:
    """For arrays and tensors alike."""
    return [a[..., 0] * s[..., 1] + 0.5 * a[..., 1] ** 2 + 2, a[..., 0] ** 2 - s[..., 0] * a[..., 1] - 1]


def networks(name: str, actor: Callable[..., Any], theta: Tensor, slow: float, updates: int = 0) -> Networks:
    """An actor (s, x, t, theta), its slow copy with another theta, and slow critics that say 0.25 more."""
    q = lambda s, a: torch.stack(critics(s, a))
    online = view(**{name: partial(actor, theta=theta)}, critic=q)
    slower = view(**{name: partial(actor, theta=slow)}, critic=lambda s, a: q(s, a) + 0.25)
    return Networks(online, view(critic=q), slower, {name: torch.tensor(float(updates))})


def next_states(n: int) -> np.ndarray:
    """Each next observation n times."""
    return np.repeat(BATCH.next_observations.numpy()[:, None], n, 1)


def written_critic_loss(next_actions: np.ndarray, q_norm: bool = False) -> tuple[float, float]:
    """The loss for n next actions per row, and the mean target."""
    q = np.stack(critics(next_states(next_actions.shape[1]), next_actions)) + 0.25
    y = BATCH.rewards.numpy() + BATCH.discounts.numpy() * q.max(-1).min(0)
    y = y / (y.std(ddof=1) + 1e-6) if q_norm else y
    now = critics(BATCH.observations.numpy(), BATCH.actions.numpy())
    return sum((BATCH.valid.numpy() * (q - y) ** 2).mean() for q in now), y.mean()
