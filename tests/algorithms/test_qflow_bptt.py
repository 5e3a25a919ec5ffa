"""Q-Flow's ablation: the partial integration, and the gradient through it."""

import pytest
import torch
from batches import batch
from stubs import view

from flowpolicies.algorithms import QFlow, QFlowBPTT, QFlowBPTTConfig
from flowpolicies.algorithms.qflow import bptt_loss
from flowpolicies.core import Networks, ReplayedNoise

BATCH = batch(torch.zeros(4, 1), valid=torch.tensor([1.0, 1.0, 1.0, 0.0]))
CFG = QFlowBPTTConfig(alpha=2.0, flow_steps=4)
X_0, TIMES = torch.tensor([[0.4], [-0.4], [0.8], [3.0]]), torch.tensor([[0.0], [0.3], [0.5], [0.95]])


def by_hand(x: float, t: float, slope: float) -> float:
    """Steps of 1/4 along v = slope x, the last one cut short at t; then clipped."""
    for i in range(4):
        x += min(max(t - i / 4, 0.0), 0.25) * slope * x
    return min(max(x, -1.0), 1.0)


def test_value_is_asked_where_the_first_steps_arrive_and_when() -> None:
    asked = []

    def value(s, x, t):
        asked.append((x.detach(), t))
        return torch.stack([x[:, 0], 3 * x[:, 0]])

    nets = Networks(view(actor_flow=lambda s, x, t: -x), view(inner_value=value), view())
    noise = ReplayedNoise(1, [torch.ones(4, 1), torch.full((4, 1), 0.5), X_0, TIMES])
    loss, metrics = bptt_loss(nets, BATCH, noise, CFG)
    arrived = [by_hand(float(x), float(t), -1.0) for x, t in zip(X_0, TIMES, strict=True)]
    assert arrived[:2] == pytest.approx([0.4, -0.4 * 0.75 * 0.95])
    assert arrived[3] == 1.0 < 3 * 0.75**3 * 0.8  # Clipped where it arrives, not on the way.
    torch.testing.assert_close(asked[0][0][:, 0], torch.tensor(arrived))
    torch.testing.assert_close(asked[0][1], TIMES)
    bc = 3 * (-0.5 - (0 - 1)) ** 2 / 4
    assert float(metrics["bc_loss"]) == pytest.approx(bc)
    assert float(metrics["value"]) == pytest.approx(2 * sum(arrived) / 4)
    assert float(loss) == pytest.approx(2 * bc - 2 * sum(arrived) / 4)


def test_gradient_runs_through_every_step() -> None:
    slope = torch.tensor(-1.0, requires_grad=True)
    nets = Networks(view(actor_flow=lambda s, x, t: slope * x), view(inner_value=lambda s, x, t: x[:, 0][None]), view())
    noise = ReplayedNoise(1, [torch.zeros(4, 1), torch.zeros(4, 1), X_0, TIMES])  # No gradient from x_t = 0.
    loss, _ = bptt_loss(nets, BATCH, noise, CFG)
    (found,) = torch.autograd.grad(loss, slope)
    value = lambda k: sum(by_hand(float(x), float(t), k) for x, t in zip(X_0, TIMES, strict=True)) / 4
    assert float(found) == pytest.approx(-(value(-1 + 1e-4) - value(-1 - 1e-4)) / 2e-4, rel=1e-3)


def test_it_differs_from_qflow_in_the_policy_term_only() -> None:
    assert QFlowBPTT.losses[:2] == QFlow.losses[:2]
    assert QFlowBPTT.losses[2] != QFlow.losses[2]
    assert CFG.networks(0.005).keys() == QFlow.Config().networks(0.005).keys()
