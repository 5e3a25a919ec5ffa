"""DSRL's latent critic and actor against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from batches import batch
from stubs import view
from tiny import tiny

from flowpolicies.algorithms import DSRL, DSRLConfig
from flowpolicies.algorithms.dsrl import latent_actor_loss, latent_critic_loss
from flowpolicies.core import Networks, ReplayedNoise

BATCH = batch(torch.zeros(2, 3), valid=torch.tensor([1.0, 0.0]))


def test_latent_critic_learns_member_by_member_what_the_slow_flow_makes_of_the_noise() -> None:
    z = torch.tensor([[0.2, 0.4, 0.0], [4.0, 0.0, 0.0]])
    nets = Networks(
        online=view(latent_critic=lambda s, z: torch.stack([z.sum(-1), -z.sum(-1)])),
        frozen=view(critic=lambda s, a: torch.stack([a.sum(-1), 10 * a.sum(-1)])),
        target=view(actor_flow=lambda s, x, t: -x),
    )
    loss, _ = latent_critic_loss(nets, BATCH, ReplayedNoise(3, [z]), DSRLConfig(flow_steps=2))
    arrived = [0.6 / 4, 1.0]  # (1 - 1/2)^2 of the noise, clipped; the invalid row counts.
    expected = [(0.6 - arrived[0]) ** 2, (4 - 1) ** 2, (-0.6 - 10 * arrived[0]) ** 2, (-4 - 10) ** 2]
    assert float(loss) == pytest.approx(sum(expected) / 4)


def test_latent_actor_and_temperature() -> None:
    alpha = torch.tensor(0.5, requires_grad=True)
    mean = torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.0, 0.0]], requires_grad=True)
    nets = Networks(
        online=view(latent_actor=lambda s, eps: (mean + eps, (mean + eps).sum(-1)), temperature=lambda: alpha),
        frozen=view(
            latent_critic=lambda s, z: torch.stack([z.sum(-1), 3 * z.sum(-1)]), temperature=lambda: alpha.detach()
        ),
        target=view(),
    )
    cfg = DSRLConfig(noise_scale=2.0, target_entropy_multiplier=0.5)
    loss, metrics = latent_actor_loss(nets, BATCH, ReplayedNoise(3, [torch.zeros(2, 3)]), cfg)
    slope, pull = torch.autograd.grad(loss, [alpha, mean])
    loss, metrics = loss.detach(), {key: value.detach() for key, value in metrics.items()}
    assert float(metrics["q_loss"]) == pytest.approx(-(2 * 2.0 * 0.6) / 2)
    assert float(metrics["entropy"]) == pytest.approx(-0.3)
    assert float(metrics["temperature_loss"]) == pytest.approx(0.5 * (-0.3 + 1.5))
    assert float(loss) == pytest.approx(0.5 * 0.3 - 1.2 + 0.5 * 1.2)
    assert float(slope) == pytest.approx(-0.3 + 1.5)
    torch.testing.assert_close(pull, torch.full((2, 3), (0.5 - 4.0) / 2))


def test_the_slow_flow_acts_and_explores(data) -> None:
    model = tiny(DSRL, dataset=data, best_of_n=2)
    model.policy.targets["actor_flow"].net.output.bias += 10.0
    for explore in (False, True):
        actions, _ = model.policy.predict(np.zeros((4, 3), np.float32), explore=explore)
        assert (actions == 2.0).all()
