"""What Diffusion-QL and CAC share, on numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from batches import batch
from stubs import view

from flowpolicies.core import Networks, RecordingNoise, ReplayedNoise, ZeroNoise
from flowpolicies.losses import best_next_value, maximize_either_q
from flowpolicies.samplers import OneStep

BATCH = batch(torch.zeros(2, 1), next_observations=torch.tensor([[0.0], [1.0]]))


def test_each_critic_takes_its_own_maximum_before_the_minimum() -> None:
    """The critics want opposite things: the minima of maxima are 0.9 and 0.6, the maxima of minima -0.9 and 0.4."""
    slow = view(
        actor_onestep=lambda s, z: z,
        critic=lambda s, a: torch.stack([a[..., 0], -a[..., 0] + s[..., 0]]),
    )
    nets = Networks(view(), view(), slow)
    candidates = torch.tensor([[-1.0, *[-0.9] * 8, 0.9], [0.6, *[0.2] * 8, -0.3]]).unsqueeze(-1)
    found = best_next_value(nets, BATCH, ReplayedNoise(1, [candidates]), OneStep(), True)
    assert found.tolist() == pytest.approx([0.9, 0.6])
    found = best_next_value(nets, BATCH, ReplayedNoise(1, [candidates]), OneStep(), True, "mean")
    assert found.tolist() == pytest.approx([0.95, (0.6 + 1.3) / 2])
    single = best_next_value(nets, BATCH, ReplayedNoise(1, [candidates[:, :1]]), OneStep(), False)
    assert single.tolist() == pytest.approx([-1.0, 0.4])


@pytest.mark.parametrize(("coin", "climbed"), [(0.2, 0), (0.8, 1)])
def test_a_coin_decides_which_critic_is_climbed(coin: float, climbed: int) -> None:
    actions = torch.tensor([[0.5], [-0.25]], requires_grad=True)
    slopes = (2.0, -8.0)
    nets = Networks(view(), view(critic=lambda s, a: torch.stack([k * a[:, 0] for k in slopes])), view())
    loss = maximize_either_q(nets, BATCH, actions, ReplayedNoise(1, [torch.tensor(coin)]))
    size = abs(slopes[1 - climbed]) * 0.375
    assert loss.item() == pytest.approx(-slopes[climbed] * 0.125 / size)
    (gradient,) = torch.autograd.grad(loss, actions)  # The divisor is a constant.
    torch.testing.assert_close(gradient, torch.full((2, 1), -slopes[climbed] / 2 / size))


def test_one_coin_per_batch_and_two_critics() -> None:
    noise = RecordingNoise(ZeroNoise(1))
    nets = Networks(view(), view(critic=lambda s, a: torch.stack([a[:, 0]] * 3) + 1), view())
    with pytest.raises(ValueError, match="ensemble=2, got 3"):
        maximize_either_q(nets, BATCH, torch.zeros(2, 1), noise)
    nets = Networks(view(), view(critic=lambda s, a: torch.stack([a[:, 0]] * 2) + 1), view())
    maximize_either_q(nets, BATCH, torch.zeros(2, 1), noise)
    assert [(draw.kind, draw.shape) for draw in noise.draws] == [("uniform", ())]
