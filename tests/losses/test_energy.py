"""Weights and values over a support, and contrastive energy prediction, against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from batches import batch
from scipy.special import softmax
from stubs import view

from flowpolicies.core import Networks
from flowpolicies.losses import contrastive_energy, soft_td_loss, soft_value, support_weights

Q = np.array([[0.3, -1.2, 2.0], [5.0, 5.0, 5.0]])


def test_weights_and_value_equal_numpy_and_are_even_for_equal_values() -> None:
    weights = support_weights(torch.tensor(Q), 1.5)
    np.testing.assert_allclose(weights, softmax(1.5 * Q, -1), rtol=1e-12)
    np.testing.assert_allclose(weights[1], np.full(3, 1 / 3), rtol=1e-12)
    np.testing.assert_allclose(soft_value(torch.tensor(Q), 1.5), (softmax(1.5 * Q, -1) * Q).sum(-1), rtol=1e-12)
    assert support_weights(torch.tensor([1e4, 0.0]), 10.0).tolist() == [1.0, 0.0]


def test_value_goes_from_the_mean_to_the_best() -> None:
    q = torch.tensor(Q[:1])
    assert float(soft_value(q, 0.0)) == pytest.approx(Q[0].mean())
    assert float(soft_value(q, 1e3)) == pytest.approx(Q[0].max())


def test_td_target_by_hand() -> None:
    """Two next actions, two critics: the minimum over the critics first, then the softmax over the actions."""
    critic = lambda s, a: torch.stack([a[..., 0], 2 * a[..., 0]])
    data = batch(torch.ones(1, 1), rewards=torch.tensor([1.0]), discounts=torch.tensor([0.5]))
    nets = Networks(view(critic=critic), view(), view(critic=critic))
    next_actions = torch.tensor([[[1.0], [-1.0]]])
    low, high = -2.0, 1.0
    w = math.exp(0.7 * high) / (math.exp(0.7 * high) + math.exp(0.7 * low))
    target = 1 + 0.5 * (w * high + (1 - w) * low)
    loss, metrics = soft_td_loss(nets, data, next_actions, 0.7, "min")
    assert float(metrics["target_mean"]) == pytest.approx(target)
    assert float(loss) == pytest.approx(((1 - target) ** 2 + (2 - target) ** 2) / 2)


def test_contrastive_loss_equals_numpy() -> None:
    f = np.array([[0.1, 0.2, -0.5], [1.0, 0.0, 3.0]])
    found = contrastive_energy(torch.tensor(f), torch.tensor(Q), 2.0)
    np.testing.assert_allclose(found, -(softmax(2 * Q, -1) * np.log(softmax(f, -1))).sum(-1), rtol=1e-12)


def test_contrastive_loss_is_log_m_where_nothing_is_known() -> None:
    assert float(contrastive_energy(torch.full((5,), 7.0), torch.full((5,), -2.0), 3.0)) == pytest.approx(math.log(5))


def test_contrastive_loss_is_least_at_the_values_and_their_shifts() -> None:
    q = torch.tensor(Q[0])
    best = contrastive_energy(2 * q, q, 2.0)
    for shift in (0.0, 4.0):
        f = (2 * q + shift).requires_grad_()
        (slope,) = torch.autograd.grad(contrastive_energy(f, q, 2.0), f)
        torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-12, rtol=0)
    entropy = -(softmax(2 * Q[0]) * np.log(softmax(2 * Q[0]))).sum()
    assert float(best) == pytest.approx(entropy)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        wrong = 2 * q + torch.randn(3, generator=generator, dtype=torch.float64)
        assert contrastive_energy(wrong, q, 2.0) > best
