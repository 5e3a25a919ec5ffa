"""The critic of noisy actions against numbers worked out by hand, and who acts."""

import math

import numpy as np
import pytest
import torch
from batches import batch, column
from stubs import fail, view
from tiny import tiny

from flowpolicies.algorithms import CGQL, CGQLL, CGQLM, CGQLConfig, CGQLLConfig, CGQLMConfig
from flowpolicies.algorithms.cgql import critic_loss, linex, noisy_linex_loss, noisy_mse_loss
from flowpolicies.core import Networks, ReplayedNoise

BATCH = batch(
    column(1.0, 0.5),
    rewards=torch.tensor([1.0, -1.0]),
    discounts=torch.tensor([0.9, 0.0]),
    valid=torch.tensor([1.0, 0.0]),
)
SUM = lambda s, a, t: (a + 10 * t).squeeze(-1)[None]


def test_linex_below_the_clip() -> None:
    noisy, clean = torch.tensor([1.0, -3.0]), torch.tensor([2.0, -3.5])
    expected = [math.exp(2) + 2 * 1.0, math.exp(-1) + 2 * -3.0]
    torch.testing.assert_close(linex(noisy, clean, 2.0, 5.0), torch.tensor(expected))


def test_linex_drops_at_the_clip() -> None:
    delta = torch.tensor([4.999, 5.001, 1e4])
    noisy = torch.zeros(3, requires_grad=True)
    losses = linex(noisy, delta / 0.5, 0.5, 5.0)
    torch.testing.assert_close(losses, torch.tensor([math.exp(4.999), 5.001, 1e4]))
    (slope,) = torch.autograd.grad(losses.sum(), noisy)
    torch.testing.assert_close(slope, 0.5 * torch.tensor([1 - math.exp(4.999), -1.0, -1.0]), rtol=1e-4, atol=0)


def test_linex_is_minimal_at_the_soft_maximum() -> None:
    clean = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    kappa = 1.5
    best = ((kappa * clean).exp().mean().log() / kappa).requires_grad_()
    (slope,) = torch.autograd.grad(linex(best.expand(1000), clean, kappa, math.inf).mean(), best)
    assert float(slope) == pytest.approx(0.0, abs=1e-5)
    assert float(best.detach()) > float(clean.mean())


def test_noisy_critic_draws_the_time_first_and_learns_the_clean_target_value() -> None:
    t, x_0 = torch.tensor([[0.25], [0.5]]), torch.tensor([[-1.0], [0.0]])
    twice = lambda s, a, t: 2 * SUM(s, a, t)
    nets = Networks(view(critic=SUM), view(), view(critic=twice))
    noisy, clean = 0.75 * -1.0 + 0.25 * 1.0 + 10 * 0.25, 2 * (1.0 + 10)  # The second row is not valid.
    loss, metrics = noisy_mse_loss(nets, BATCH, ReplayedNoise(1, [t, x_0]), CGQLMConfig(noisy_coef=0.1))
    assert float(metrics["error"]) == pytest.approx((noisy - clean) ** 2 / 2)
    assert float(loss) == pytest.approx(0.1 * (noisy - clean) ** 2 / 2)
    cfg = CGQLLConfig(noisy_coef=0.1, inv_temp=0.1)
    loss, metrics = noisy_linex_loss(nets, BATCH, ReplayedNoise(1, [t, x_0]), cfg)
    assert float(loss) == pytest.approx(0.1 * (math.exp(0.1 * (clean - noisy)) + 0.1 * noisy) / 2)
    assert float(metrics["clipped"]) == 0.0
    _, metrics = noisy_linex_loss(nets, BATCH, ReplayedNoise(1, [t, x_0]), CGQLLConfig(isd_clip=0.5, inv_temp=0.1))
    assert float(metrics["clipped"]) == 1.0
    # 0.1 times the difference is 2 and 1.6; 0.1 times the sum would be 2.4 and 2.6.
    _, metrics = noisy_linex_loss(nets, BATCH, ReplayedNoise(1, [t, x_0]), CGQLLConfig(isd_clip=1.9, inv_temp=0.1))
    assert float(metrics["clipped"]) == 0.5
    _, metrics = noisy_linex_loss(nets, BATCH, ReplayedNoise(1, [t, x_0]), CGQLLConfig(isd_clip=2.2, inv_temp=0.1))
    assert float(metrics["clipped"]) == 0.0


def test_targets_come_from_the_slow_flow_guided_by_the_trained_critic() -> None:
    nets = Networks(
        online=view(critic=SUM),
        frozen=view(critic=lambda s, a, t: 3 * SUM(s, a, t), actor_flow=fail),
        target=view(critic=lambda s, a, t: 5 * SUM(s, a, t), actor_flow=lambda s, x, t: 0 * x),
    )
    cfg = CGQLConfig(flow_steps=2, inv_temp=0.2, guidance_coef=0.5)
    _, metrics = critic_loss(nets, BATCH, ReplayedNoise(1, [torch.tensor([[0.1], [0.0]])]), cfg)
    action = 0.1 + 0.5 * (0.5 / 0.5) * (0.2 * 0.5 * 3 + 0.1)
    assert float(metrics["target_mean"]) == pytest.approx((1 + 0.9 * 5 * (action + 10) - 1) / 2)


@pytest.mark.parametrize("algorithm", [CGQL, CGQLM, CGQLL])
def test_the_slow_flow_acts_and_explores(algorithm, data) -> None:
    model = tiny(algorithm, dataset=data, best_of_n=2)
    model.policy.targets["actor_flow"].net.output.bias += 10.0
    for explore in (False, True):
        actions, _ = model.policy.predict(np.zeros((4, 3), np.float32), explore=explore)
        assert (actions == 2.0).all()


@pytest.mark.parametrize("critic_time", ["final", "current"])
def test_variants_ask_the_critic_at_their_time(critic_time: str) -> None:
    algorithms = {"final": [CGQL], "current": [CGQLM, CGQLL]}[critic_time]
    assert all(a.Config().sampler().critic_time == critic_time for a in algorithms)
    assert all(a.Config(best_of_n=3).sampler().at == 1.0 for a in algorithms)
