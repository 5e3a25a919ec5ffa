"""Guidance that tolerates a bad critic, row by row and by hand, on fields and critics whose gradients are known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from stubs import view
from torch import Tensor

from flowpolicies.core import ReplayedNoise
from flowpolicies.samplers import GuidanceMonitor, RobustGuided

INF, NAN = math.inf, math.nan
STATES = torch.tensor([[0.3, -0.4], [2.4, 3.2], [0.0, 0.1]])
"""Their norms are 0.5, 4 and 0.1."""
X_0 = torch.tensor([[0.1, 0.2], [-0.3, 0.0], [0.5, -0.5]])


def act(nets: dict[str, Any], x_0: Tensor = X_0, states: Tensor = STATES, **options: Any) -> Tensor:
    return RobustGuided(**options)(view(**nets), states, ReplayedNoise(2, [x_0]))


def linear(s: Tensor, a: Tensor) -> Tensor:
    """Two critics, whose mean has the gradient s in every row."""
    return torch.stack([(0.5 * s * a).sum(-1), (1.5 * s * a).sum(-1)])


FIELD = {"actor_flow": lambda s, x, t: 0.2 + 0 * x, "critic": linear}


@pytest.mark.parametrize("adaptive", [True, False])
def test_long_gradients_are_reduced_to_the_alarm_and_all_guidance_by_the_scale(adaptive: bool) -> None:
    monitor = GuidanceMonitor(alarm=1.0, scale=0.4)
    found = act(FIELD, steps=2, beta=0.5, schedule="linear", adaptive=adaptive, monitor=monitor)
    factors = torch.tensor([[1.0], [0.25], [1.0]]) * 0.4 if adaptive else 1.0
    # Two steps of 1/2; the weight is 0 at t = 0 and 1/2 at t = 1/2.
    torch.testing.assert_close(found, (X_0 + 0.2 + 0.5 * 0.5 * 0.5 * factors * STATES).clamp(-1, 1))
    assert monitor.reduced == pytest.approx(1 / 3 if adaptive else 0.0)
    assert monitor.norm_max == pytest.approx(4.0 if adaptive else 0.0)


def test_normalised_guidance_is_divided_by_the_mean_size_of_the_values() -> None:
    x_0 = X_0 * torch.tensor([[-1.0], [1.0], [1.0]])
    values = linear(STATES, x_0)
    assert values.min() < 0 < values.max()
    found = act(FIELD, x_0, steps=1, beta=0.1, adaptive=False, normalize_q=True)
    torch.testing.assert_close(found, (x_0 + 0.2 + 0.1 / values.abs().mean() * STATES).clamp(-1, 1))
    still = act(FIELD, torch.zeros(3, 2), steps=1, beta=1e-7, adaptive=False, normalize_q=True)
    torch.testing.assert_close(still, (0.2 + 0.1 * STATES).clamp(-1, 1))  # Values of 0, and 1e-6 for them.


def test_gradients_longer_than_the_clip_are_shortened_and_others_are_kept() -> None:
    found = act(FIELD, steps=1, beta=0.5, adaptive=False, clip=0.4)
    factors = torch.tensor([[0.4 / 0.5], [0.4 / 4.0], [1.0]])
    torch.testing.assert_close(found, X_0 + 0.2 + 0.5 * factors * STATES)


def test_gradients_are_taken_within_the_limits_and_states_stay_there() -> None:
    asked = []

    def field(s: Tensor, x: Tensor, t: Tensor) -> Tensor:
        asked.append(x)
        return torch.tensor([0.0, 9.0]).expand(x.shape)

    nets = {"actor_flow": field, "critic": lambda s, a: -0.5 * a.square().sum(-1)[None]}
    x_0 = torch.tensor([[3.0, 0.0], [-3.0, 0.0]])
    found = act(nets, x_0, torch.zeros(2, 1), steps=2, beta=1.6, adaptive=False, limit=1.5)
    # The gradient at 3 is that at 1.5, so x goes to 3 - 0.8 * 1.5 = 1.8, cut to 1.5; then to 1.5 - 0.8 * 1.5.
    torch.testing.assert_close(asked[1], torch.tensor([[1.5, 1.5], [-1.5, 1.5]]))
    torch.testing.assert_close(found, torch.tensor([[0.3, 1.0], [-0.3, 1.0]]))


def test_rows_with_numbers_that_are_not_finite_are_not_guided_and_stand_still_along_these() -> None:
    velocities = torch.tensor([[0.2, 0.4], [NAN, 0.2], [INF, 0.2], [-INF, 0.2], [0.2, 0.4]])
    states = torch.tensor([[NAN, 0.3], [0.3, 0.3], [0.3, 0.3], [0.3, 0.3], [0.3, -0.3]])
    nets = {"actor_flow": lambda s, x, t: velocities, "critic": linear}
    monitor = GuidanceMonitor()
    found = act(nets, torch.full((5, 2), 0.1), states, steps=1, beta=0.5, monitor=monitor)
    moved = [[0.2, 0.4], [0.0, 0.2], [0.0, 0.2], [0.0, 0.2], [0.2 + 0.5 * 0.3, 0.4 - 0.5 * 0.3]]
    torch.testing.assert_close(found, 0.1 + torch.tensor(moved))
    assert monitor.non_finite == pytest.approx(4 / 5)
    assert monitor.norm_max == pytest.approx(0.3 * 2**0.5)


def test_the_monitor_averages_and_turns_guidance_down_and_slowly_up() -> None:
    monitor, none = GuidanceMonitor(alarm=10.0, memory=0.8), torch.zeros(2, 2, 1, dtype=torch.bool)
    half = torch.tensor([[[True], [False]], [[True], [False]]])

    def update(*norms: float) -> tuple[float, float, float]:
        monitor.update(torch.tensor(norms).view(2, 2, 1), half, none)
        return monitor.norm_mean, monitor.norm_max, monitor.scale

    assert update(20.0, 30.0, 40.0, INF) == pytest.approx((30.0, 40.0, 0.5))
    assert (monitor.norm_running, monitor.reduced, monitor.non_finite) == (30.0, 0.5, 0.0)
    assert update(0.0, 0.0, 0.0, 0.0) == pytest.approx((0.0, 0.0, 0.25))
    assert monitor.norm_running == pytest.approx(0.8 * 30.0)
    monitor.norm_running = 7.0
    assert update(*[7.0] * 4) == pytest.approx((7.0, 7.0, 0.25))  # Between half of the alarm and the alarm.
    monitor.norm_running = 4.0
    assert update(*[4.0] * 4) == pytest.approx((4.0, 4.0, 0.25 * 1.01))
    monitor.scale = 0.995
    assert update(*[4.0] * 4)[2] == 1.0
    assert update(*[INF] * 4)[:2] == (INF, INF)
