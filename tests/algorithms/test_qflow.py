"""Q-Flow's inner value and policy by hand (https://arxiv.org/abs/2605.13435), with linear stand-ins for networks."""

from __future__ import annotations

import pytest
import torch
from batches import batch, column
from stubs import fail, view

from flowpolicies.algorithms import QFlowConfig
from flowpolicies.algorithms.qflow import actor_loss, inner_value_loss
from flowpolicies.core import Networks, ReplayedNoise

ACTIONS, STATES, X_0, TIMES = (0.5, -1.0, 0.8), (0.1, 0.2, 0.3), (0.1, 1.0, 0.0), (0.5, 0.25, 0.5)
BATCH = batch(column(*ACTIONS), observations=column(*STATES), valid=torch.tensor([1.0, 1.0, 0.0]))
X_T = [(1 - t) * x_0 + t * a for t, x_0, a in zip(TIMES, X_0, ACTIONS, strict=True)]


def noise() -> ReplayedNoise:
    return ReplayedNoise(1, [column(*X_0), column(*TIMES)])


def pessimistic(first: float, second: float, rho: float) -> float:
    """Mean minus rho population standard deviations."""
    return (first + second) / 2 - rho * abs(first - second) / 2


@pytest.mark.parametrize("q_agg", ["mean", "min"])
def test_the_aggregated_inner_value_is_regressed_and_rho_lowers_its_target_only(q_agg: str) -> None:
    """The flow has velocity 1, Qbar is x + s or 3x, and V is x + t or 2x + s."""
    slow = view(critic=lambda s, x: torch.stack([x[:, 0] + s[:, 0], 3 * x[:, 0]]))
    online = view(inner_value=lambda s, x, t: torch.stack([x[:, 0] + t[:, 0], 2 * x[:, 0] + s[:, 0]]))
    frozen = view(actor_flow=lambda s, x, t: torch.ones_like(x), critic=fail, inner_value=fail)
    rho = 0.5 if q_agg == "mean" else 0.0
    cfg = QFlowConfig(flow_steps=4, q_agg=q_agg, **{"rho": rho} if rho else {})
    loss, metrics = inner_value_loss(Networks(online, frozen, slow), BATCH, noise(), cfg)

    landed = [min(x + 1 - t, 1.0) for x, t in zip(X_T, TIMES, strict=True)]
    agg = pessimistic if q_agg == "mean" else lambda first, second, rho: min(first, second)
    targets = [agg(x + s, 3 * x, rho) for x, s in zip(landed, STATES, strict=True)]
    values = [agg(x + t, 2 * x + s, 0.0) for x, t, s in zip(X_T, TIMES, STATES, strict=True)]
    errors = [(value - target) ** 2 for value, target in zip(values, targets, strict=True)]
    assert float(loss) == pytest.approx(sum(errors[:2]) / 3)  # The last row is not valid.
    assert float(metrics["value"]) == pytest.approx(sum(values) / 3)


def test_the_policy_learns_the_path_s_velocity_and_the_gradient_of_the_mean_inner_value() -> None:
    """V is -x^2 or 10 s x - x^2, so its mean has the gradient 5 s - 2 x, of either sign."""
    frozen = view(inner_value=lambda s, x, t: torch.stack([-(x**2)[:, 0], (10 * s * x - x**2)[:, 0]]))
    nets = Networks(view(actor_flow=lambda s, x, t: s + x + t), frozen, view(inner_value=fail))
    loss, metrics = actor_loss(nets, BATCH, noise(), QFlowConfig(guidance_lambda=4.0, q_agg="min"))
    gradients = [5 * s - 2 * x for s, x in zip(STATES, X_T, strict=True)]
    assert min(gradients) < 0 < max(gradients)
    velocities = [a - x_0 + g / 4 for a, x_0, g in zip(ACTIONS, X_0, gradients, strict=True)]
    errors = [(s + x + t - v) ** 2 for s, x, t, v in zip(STATES, X_T, TIMES, velocities, strict=True)]
    assert float(loss) == pytest.approx(sum(errors[:2]) / 3)
    assert float(metrics["guidance"]) == pytest.approx(sum(map(abs, gradients)) / 3)


def test_time_is_embedded_in_the_inner_value_and_only_there_by_default() -> None:
    networks = QFlowConfig(time_dim=16).networks(0.25)
    options = {name: network.factory.keywords for name, network in networks.items()}
    assert (options["inner_value"]["time_embedding"], options["inner_value"]["time_dim"]) == ("fourier", 16)
    assert options["actor_flow"]["time_embedding"] == "scalar"
    embedded = QFlowConfig(time_dim=16, policy_time_embedding="fourier").networks(0.25)["actor_flow"].factory.keywords
    assert (embedded["time_embedding"], embedded["time_dim"]) == ("fourier", 16)
    assert {name: network.target_rate for name, network in networks.items()} == {
        "critic": 0.25,
        "inner_value": 0.25,  # Kept as in the authors' code, although no loss reads it.
        "actor_flow": None,
    }
