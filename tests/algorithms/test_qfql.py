"""QFQL's numbers, worked out by hand (https://openreview.net/forum?id=MFY9i3uR7S), with linear stand-ins."""

import pytest
import torch
from batches import batch
from stubs import view

from flowpolicies.algorithms.qfql import QFQLConfig, critic_loss
from flowpolicies.core import Networks, ReplayedNoise
from flowpolicies.samplers import Guided


def nets() -> Networks:
    """v = 0.5 - t, and critics Q_1 = 0.2 a, Q_2 = 0.6 a: their mean has gradient 0.4."""
    fields = view(
        actor_flow=lambda s, x, t: torch.full_like(x, 0.5) - t,
        critic=lambda s, a: torch.stack([0.2 * a[..., 0], 0.6 * a[..., 0]]),
    )
    return Networks(fields, fields, fields)


BATCH = batch(torch.tensor([[0.5]]), rewards=torch.tensor([1.0]), discounts=torch.tensor([0.9]))

# From x_0 = 0.1 with two steps: euler 0.1 + 0.5 * 0.5 + 0.5 * 0 = 0.35; one step 0.1 + 0.5 = 0.6;
# guided with beta 0.5 adds 0.5 * 0.4 = 0.2 to the velocity, so 0.2 over the unit interval: 0.55.
NEXT_ACTION = {"euler": 0.35, "one_step": 0.6, "guided_euler": 0.55}


@pytest.mark.parametrize("td_action", list(NEXT_ACTION))
def test_critic_loss(td_action: str) -> None:
    cfg = QFQLConfig(beta=0.5, flow_steps=2, td_action=td_action)
    loss, metrics = critic_loss(nets(), BATCH, ReplayedNoise(1, [torch.tensor([[0.1]])]), cfg)
    target = 1.0 + 0.9 * 0.4 * NEXT_ACTION[td_action]
    assert float(metrics["target_mean"]) == pytest.approx(target)
    assert float(loss) == pytest.approx(((0.1 - target) ** 2 + (0.3 - target) ** 2) / 2)


def test_pessimism_lowers_the_target() -> None:
    cfg = QFQLConfig(flow_steps=2, rho=0.5)
    _, metrics = critic_loss(nets(), BATCH, ReplayedNoise(1, [torch.tensor([[0.1]])]), cfg)
    # Q at 0.35 is 0.07 and 0.21: mean 0.14, population deviation 0.07.
    assert float(metrics["target_mean"]) == pytest.approx(1.0 + 0.9 * (0.14 - 0.5 * 0.07))


def test_acting_is_the_guided_flow() -> None:
    cfg = QFQLConfig(beta=0.5, flow_steps=2)
    assert cfg.sampler() == Guided(beta=0.5, steps=2)
    action = cfg.sampler()(nets().frozen, torch.zeros(1, 1), ReplayedNoise(1, [torch.tensor([[0.1]])]))
    assert float(action) == pytest.approx(0.55)
