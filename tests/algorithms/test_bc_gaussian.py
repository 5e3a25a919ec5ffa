"""Gaussian behaviour cloning."""

import math

import numpy as np
import pytest
import torch
from batches import batch
from stubs import view
from tiny import tiny

from flowpolicies.algorithms import BCGaussian, BCGaussianConfig
from flowpolicies.algorithms.bc import likelihood_loss
from flowpolicies.core import Networks, ZeroNoise


def test_likelihood_by_hand() -> None:
    head = torch.tensor([[0.0, 0.5], [0.0, 0.0]]), torch.tensor([[0.5, 2.0], [1.0, 1.0]]).log()
    nets = Networks(view(actor=lambda s: head), view(), view())
    data = batch(torch.tensor([[0.5, -0.5], [1.0, 1.0]]), valid=torch.tensor([1.0, 0.0]))
    loss, metrics = likelihood_loss(nets, data, ZeroNoise(2), BCGaussianConfig())
    first = 0.5 * ((0.5 / 0.5) ** 2 + (1 / 2) ** 2) + math.log(0.5 * 2) + math.log(2 * math.pi)
    assert float(loss) == pytest.approx(first / 2)
    assert float(metrics["mse"]) == pytest.approx((0.25 + 1.0) / 2 / 2)
    assert float(metrics["std"]) == pytest.approx((0.5 + 2 + 1 + 1) / 4)


def test_loss_is_least_at_mean_and_deviation_of_the_data() -> None:
    actions = torch.tensor([[0.1], [0.7], [-0.2], [0.6]])
    mean = actions.mean().clone().requires_grad_()
    log_std = actions.std(correction=0).log().clone().requires_grad_()
    nets = Networks(view(actor=lambda s: (mean.expand(4, 1), log_std.expand(4, 1))), view(), view())
    loss, _ = likelihood_loss(nets, batch(actions), ZeroNoise(1), BCGaussianConfig())
    for slope in torch.autograd.grad(loss, [mean, log_std]):
        assert float(slope) == pytest.approx(0.0, abs=1e-6)


def test_it_samples_its_own_deviation(data) -> None:
    model = tiny(BCGaussian, dataset=data)
    head = model.policy.networks["actor"]
    with torch.no_grad():
        head.log_std.bias.fill_(math.log(0.1))
        head.log_std.weight.zero_()
    actions = model.predict(np.zeros((4000, 3), np.float32))[0] / 2
    assert float(actions.std()) == pytest.approx(0.1, rel=0.05)
