"""Solvers, grids, paths, guidance."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowpolicies.core import ReplayedNoise
from flowpolicies.flows import (
    SOLVERS,
    action_gradient,
    interpolate,
    leading_grid,
    remaining_grid,
    uniform_grid,
    unit_grid,
)


def error(method: str, steps: int) -> float:
    """dx/dt = x cos(t) from x(0) = 1: x(1) = exp(sin 1)."""
    x = torch.ones(1, 1, dtype=torch.float64)
    end = SOLVERS[method](lambda x, t: x * torch.cos(t), x, unit_grid(x, steps))
    return abs(float(end) - math.exp(math.sin(1.0)))


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_solver_order(method: str, order: int) -> None:
    measured = math.log2(error(method, 16) / error(method, 32))
    assert measured == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("method", list(SOLVERS))
@settings(max_examples=20, deadline=None)
@given(steps=st.integers(20, 60), seed=st.integers(0, 1000))
def test_reverse_flow_undoes_forward_flow(method: str, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    w = 0.5 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    velocity = lambda x, t: torch.tanh(x @ w) + t
    grid = unit_grid(x, steps)
    back = SOLVERS[method](velocity, SOLVERS[method](velocity, x, grid), grid.flip(0))
    tolerance = {"euler": 3.0 / steps, "midpoint": 6.0 / steps**2, "heun": 6.0 / steps**2, "rk4": 20.0 / steps**4}[
        method
    ]
    assert float((back - x).abs().max()) < tolerance


@pytest.mark.parametrize("method", list(SOLVERS))
def test_two_halves_are_the_whole(method: str) -> None:
    x = torch.randn(4, 2)
    velocity = lambda x, t: -x + t
    zero, half, one = torch.zeros(4, 1), torch.full((4, 1), 0.5), torch.ones(4, 1)
    whole = SOLVERS[method](velocity, x, unit_grid(x, 10))
    first = SOLVERS[method](velocity, x, uniform_grid(zero, half, 5))
    torch.testing.assert_close(
        SOLVERS[method](velocity, first, uniform_grid(half, one, 5)), whole, atol=1e-6, rtol=1e-5
    )


def test_grids() -> None:
    x = torch.zeros(2, 3, 5)
    assert unit_grid(x, 4).shape == (5, 2, 3, 1)
    torch.testing.assert_close(unit_grid(x, 4)[:, 0, 0, 0], torch.tensor([0, 0.25, 0.5, 0.75, 1.0]))
    start = torch.tensor([[0.0], [0.72], [1.0]])
    remaining = remaining_grid(start, 10)
    assert remaining.shape == (11, 3, 1)
    assert torch.equal(remaining[0], start)
    assert torch.equal(remaining[-1], torch.ones(3, 1))
    assert float(remaining.diff(dim=0).max()) <= 0.1 + 1e-6
    torch.testing.assert_close(remaining[:4, 1, 0], torch.tensor([0.72, 0.82, 0.92, 1.0]))
    leading = leading_grid(torch.tensor([[0.25], [1.0]]), 10)
    torch.testing.assert_close(leading[:5, 0, 0], torch.tensor([0.0, 0.1, 0.2, 0.25, 0.25]))
    torch.testing.assert_close(leading[-1], torch.tensor([[0.25], [1.0]]))


def test_descending_grid_steps_backwards() -> None:
    grid = uniform_grid(torch.ones(1, 1), torch.tensor([[0.25]]), 3)
    torch.testing.assert_close(grid[:, 0, 0], torch.tensor([1.0, 0.75, 0.5, 0.25]))


def test_interpolation_is_the_straight_path() -> None:
    x_0, t, actions = torch.randn(6, 2), torch.rand(6, 1), torch.rand(6, 2)
    x_t, drawn, velocity = interpolate(actions, ReplayedNoise(2, [x_0, t]))
    assert torch.equal(drawn, t)
    torch.testing.assert_close(x_t, (1 - t) * x_0 + t * actions)
    torch.testing.assert_close(x_t + (1 - t) * velocity, actions)


def test_action_gradient_is_row_wise_and_of_the_ensemble_mean() -> None:
    s, a = torch.randn(5, 2), torch.randn(5, 2)
    q = lambda a: torch.stack([(a.square() * s).sum(-1), 3 * a.sum(-1)])
    torch.testing.assert_close(action_gradient(q, a), 0.5 * (2 * a * s + 3))
