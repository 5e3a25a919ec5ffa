"""The memoryless SDE and the adjoint that runs back along it, against closed forms."""

import pytest
import torch

from flowpolicies.core import GeneratorNoise, RecordingNoise, ReplayedNoise, ZeroNoise
from flowpolicies.flows import lean_adjoint, memoryless_sde, memoryless_sigma, unit_grid

STEPS = 10


def constant(value: float):
    return lambda x, t: torch.full_like(x, value)


def noise(seed: int = 0) -> GeneratorNoise:
    return GeneratorNoise(3, torch.Generator().manual_seed(seed))


def test_sigma_table() -> None:
    grid = unit_grid(torch.zeros(1), STEPS)[:, 0]
    table = [4.69042, 3.16228, 2.44949, 2.0, 1.67332, 1.41421, 1.19523, 1.0, 0.81650, 0.63246]
    torch.testing.assert_close(memoryless_sigma(grid[:-1], grid.diff(dim=0)), torch.tensor(table), atol=1e-5, rtol=0)


def test_the_start_is_forgotten_in_the_first_step() -> None:
    x, eps = torch.randn(4, 3), torch.randn(STEPS, 4, 3)
    rolls = [
        memoryless_sde(constant(0.7), constant(0.0), x_0, unit_grid(x, STEPS), ReplayedNoise(3, eps))[0]
        for x_0 in (x, 5 * x + 1)
    ]
    torch.testing.assert_close(rolls[0][1], 2 * 0.7 / STEPS + (2 * (1 + 1 / STEPS)) ** 0.5 * eps[0])
    torch.testing.assert_close(rolls[0][-1], rolls[1][-1], atol=1e-5, rtol=1e-5)


def test_last_step_is_deterministic_and_along_the_base() -> None:
    x, recorded = torch.randn(4, 3), RecordingNoise(noise())
    states, velocities = memoryless_sde(constant(0.7), constant(-2.0), x, unit_grid(x, STEPS), recorded)
    torch.testing.assert_close(states[-1], states[-2] - 2.0 / STEPS)
    assert (len(states), len(velocities), len(recorded.draws)) == (STEPS + 1, STEPS - 1, STEPS)


def test_one_step_is_the_base_alone() -> None:
    x = torch.randn(4, 3)
    states, velocities = memoryless_sde(constant(0.7), constant(-2.0), x, unit_grid(x, 1), ZeroNoise(3))
    torch.testing.assert_close(states[-1], x - 2.0)
    assert velocities == []


def test_it_ends_in_the_distribution_of_the_flow() -> None:
    """The flow from N(0, 1) to N(0, 0.5^2) has v = x (0.25 t - (1 - t)) / (0.25 t^2 + (1 - t)^2)."""
    velocity = lambda x, t: x * (0.25 * t - (1 - t)) / (0.25 * t**2 + (1 - t) ** 2)
    x = noise(1).actions((4000,))
    ends = memoryless_sde(velocity, velocity, x, unit_grid(x, 200), noise(2))[0][-1]
    assert float(ends.std()) == pytest.approx(0.5, rel=0.05)
    assert abs(float((ends * x).mean())) < 0.02


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_adjoint_of_a_linear_base(steps: int) -> None:
    """For v_base = c x: a_i = a_{i+1} (1 + h (2 c - 1 / (t_i + h)))."""
    c, h, terminal = 0.3, 1 / steps, torch.randn(4, 3)
    states = [torch.randn(4, 3) for _ in range(steps + 1)]
    adjoints = lean_adjoint(lambda x, t: c * x, states, unit_grid(terminal, steps), terminal)
    expected = terminal
    for i in reversed(range(steps)):
        expected = expected * (1 + h * (2 * c - 1 / (i * h + h)))
        torch.testing.assert_close(adjoints[i], expected)


def test_adjoint_takes_the_jacobian_at_the_left_state_and_the_right_time() -> None:
    x_0, terminal, w = torch.randn(4, 3), torch.randn(4, 3), torch.randn(3, 3)
    base = lambda x, t: t * torch.tanh(x @ w)
    adjoint = lean_adjoint(base, [x_0, torch.zeros(4, 3)], unit_grid(x_0, 1), terminal)[0]
    slope = 1 - torch.tanh(x_0 @ w).square()
    torch.testing.assert_close(adjoint, 2 * (slope * terminal) @ w.T)


def test_adjoint_of_a_constant_base_vanishes_at_the_start() -> None:
    terminal = torch.randn(4, 3)
    states = [torch.zeros(4, 3)] * (STEPS + 1)
    adjoints = lean_adjoint(constant(1.0), states, unit_grid(terminal, STEPS), terminal)
    torch.testing.assert_close(adjoints[0], torch.zeros(4, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(adjoints[-1], terminal * (1 - 1 / STEPS))
