"""FAWAC's losses by hand, with linear stand-ins for networks."""

from __future__ import annotations

import math

import pytest
import torch
from batches import batch, column
from stubs import view

from flowpolicies.algorithms import FAWACConfig
from flowpolicies.algorithms.fawac import actor_loss, value_loss
from flowpolicies.core import Networks, ReplayedNoise, ZeroNoise

ACTIONS = (0.5, -0.25, 0.9)
BATCH = batch(column(*ACTIONS), observations=column(0.1, 0.2, 0.3), valid=torch.tensor([1.0, 1.0, 0.0]))
CRITIC = lambda s, a: torch.stack([a[:, 0] + s[:, 0], 3 * a[:, 0]])


def test_cloning_is_weighted_by_the_advantage_of_the_mean_critic() -> None:
    frozen = view(critic=CRITIC, value=lambda s: 2 * s[:, 0])
    nets = Networks(view(actor_flow=lambda s, x, t: x + t), frozen, view())
    x_0, t = (0.0, 0.4, 0.1), 0.5
    noise = ReplayedNoise(1, [column(*x_0), torch.full((3, 1), t)])
    loss, metrics = actor_loss(nets, BATCH, noise, FAWACConfig(inv_temp=1.5, rho=0.0))
    advantages = [(a + s + 3 * a) / 2 - 2 * s for a, s in zip(ACTIONS, (0.1, 0.2, 0.3), strict=True)]
    weights = [math.exp(1.5 * advantage) for advantage in advantages]
    errors = [((x + a) / 2 + t - (a - x)) ** 2 for x, a in zip(x_0, ACTIONS, strict=True)]
    assert float(metrics["advantage"]) == pytest.approx(sum(advantages) / 3)
    assert float(metrics["weight"]) == pytest.approx(sum(weights) / 3)
    assert float(loss) == pytest.approx((weights[0] * errors[0] + weights[1] * errors[1]) / 3)


def test_the_value_is_regressed_onto_every_slow_critic() -> None:
    value = lambda s: 2 * s[:, 0]
    nets = Networks(view(value=value), view(), view(critic=CRITIC))
    loss, metrics = value_loss(nets, BATCH, ZeroNoise(1), FAWACConfig())
    errors = [(a + s - 2 * s) ** 2 + (3 * a - 2 * s) ** 2 for a, s in zip(ACTIONS, (0.1, 0.2, 0.3), strict=True)]
    assert float(loss) == pytest.approx(sum(errors[:2]) / 6)
    assert float(metrics["v_mean"]) == pytest.approx(0.4)
