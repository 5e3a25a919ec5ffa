"""IQL's two policy losses against numbers worked out by hand, and how it acts."""

import math

import numpy as np
import pytest
import torch
from batches import batch
from stubs import view
from tiny import tiny

from flowpolicies.algorithms import IQL, IQLDDPGBC, IQLConfig, IQLDDPGBCConfig
from flowpolicies.algorithms.iql import awr_loss, ddpgbc_loss
from flowpolicies.core import Networks, ZeroNoise
from flowpolicies.policies import FlowPolicy

BATCH = batch(torch.tensor([[0.5, 0.0], [1.0, 1.0]]), valid=torch.tensor([1.0, 0.0]))
CONSTANT = math.log(2 * math.pi)
"""Minus the log-density of two standard normal coordinates at their mean."""


def networks(mean: torch.Tensor) -> Networks:
    frozen = view(critic=lambda s, a: torch.stack([a.sum(-1), 3 * a.sum(-1)]), value=lambda s: torch.full((2,), 0.25))
    return Networks(view(actor=lambda s: (mean, torch.zeros_like(mean))), frozen, view())


def test_awr_weighs_the_log_probability_by_the_advantage_of_the_smaller_critic() -> None:
    mean = torch.tensor([[0.1, 0.2], [9.0, 9.0]], requires_grad=True)
    loss, metrics = awr_loss(networks(mean), BATCH, ZeroNoise(2), IQLConfig(alpha=2.0))
    weight, log_prob = math.exp(2 * (0.5 - 0.25)), -0.5 * (0.4**2 + 0.2**2) - CONSTANT
    assert float(loss.detach()) == pytest.approx(-weight * log_prob / 2)
    assert float(metrics["advantage"]) == pytest.approx((0.25 + 1.75) / 2)
    (slope,) = torch.autograd.grad(loss, mean)
    torch.testing.assert_close(slope, weight / 2 * torch.tensor([[0.1 - 0.5, 0.2], [0.0, 0.0]]))


def test_awr_caps_the_weight() -> None:
    mean = torch.zeros(2, 2)
    loss, _ = awr_loss(networks(mean), BATCH, ZeroNoise(2), IQLConfig(alpha=1e4))
    assert float(loss) == pytest.approx(100 * (0.5 * 0.25 + CONSTANT) / 2)


def test_ddpgbc_climbs_the_normalised_smaller_critic_and_clones() -> None:
    mean = torch.tensor([[0.5, 0.25], [2.0, 0.5]], requires_grad=True)
    loss, metrics = ddpgbc_loss(networks(mean), BATCH, ZeroNoise(2), IQLDDPGBCConfig(alpha=0.5))
    log_prob = -0.5 * 0.25**2 - CONSTANT
    assert float(metrics["q_loss"].detach()) == pytest.approx(-1.0)
    assert float(loss.detach()) == pytest.approx(-1.0 - 0.5 * log_prob / 2)
    (slope,) = torch.autograd.grad(loss, mean)
    size = (0.75 + 1.5) / 2  # Mean of |Q| at the clipped actions; no gradient where an action was clipped.
    climb = torch.tensor([[1.0, 1.0], [0.0, 1.0]]) / (2 * size)
    clone = 0.5 / 2 * torch.tensor([[0.0, 0.25], [0.0, 0.0]])
    torch.testing.assert_close(slope, clone - climb)


@pytest.mark.parametrize("algorithm", [IQL, IQLDDPGBC])
def test_evaluation_takes_the_mean_and_exploration_adds_unit_noise(algorithm, data, tmp_path) -> None:
    model = tiny(algorithm, dataset=data)
    model.policy.save(tmp_path / "policy")
    obs = np.zeros((2000, 3), np.float32)
    for policy in (model.policy, FlowPolicy.load(tmp_path / "policy", device="cpu")):
        policy.seed(0)
        mean = policy.predict(obs, deterministic=True)[0] / 2
        np.testing.assert_array_equal(policy.predict(obs)[0] / 2, mean)
        explored = policy.predict(obs, explore=True)[0][:, 0] / 2
        inside = explored[np.abs(explored) < 1] - mean[0, 0]
        assert len(inside) == pytest.approx(2000 * math.erf(1 / math.sqrt(2)), rel=0.05)  # |eps| < 1, as mu is near 0.
        assert inside.std() == pytest.approx(0.5398, rel=0.05)  # Of a standard normal cut at -1 and 1.


def test_pessimism_lowers_the_advantage_and_the_climbed_value() -> None:
    mean = torch.tensor([[0.5, 0.25], [0.25, 0.5]])
    _, metrics = awr_loss(networks(mean), BATCH, ZeroNoise(2), IQLConfig(q_agg="mean", rho=0.5))
    # Q is 0.5 and 1.5, or 2 and 6: mean - 0.5 deviations is 0.75 or 3.
    assert float(metrics["advantage"]) == pytest.approx((0.75 + 3.0) / 2 - 0.25)
    loss, metrics = ddpgbc_loss(networks(mean), BATCH, ZeroNoise(2), IQLDDPGBCConfig(q_agg="mean", rho=0.5, alpha=0.0))
    assert float(loss) == float(metrics["q_loss"]) == pytest.approx(-1.0)


def test_ddpgbc_climbs_what_the_aggregation_says() -> None:
    mean = torch.tensor([[0.5, 0.25], [-0.25, -0.5]], requires_grad=True)
    for options, slopes in (
        ({}, (1.0, 3.0)),  # The minimum: Q where it is positive, 3 Q where it is negative.
        ({"q_agg": "mean", "rho": 0.0}, (2.0, 2.0)),
        ({"q_agg": "mean", "rho": 0.5}, (1.5, 2.5)),
    ):
        loss, _ = ddpgbc_loss(networks(mean), BATCH, ZeroNoise(2), IQLDDPGBCConfig(alpha=0.0, **options))
        (slope,) = torch.autograd.grad(loss, mean)
        size = 0.75 * sum(slopes) / 2
        torch.testing.assert_close(slope, -torch.tensor([[slopes[0]] * 2, [slopes[1]] * 2]) / (2 * size))
