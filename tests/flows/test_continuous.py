"""The continuous schedule, and DPM-Solver++ on Gaussian data, where the probability flow is known exactly."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from flowpolicies.flows import EARLIEST, dpm_solver, noise_level, trained_times, uniform_grid

MEAN, SPREAD = 0.4, 0.3


def scale(t: Tensor) -> Tensor:
    """Standard deviation of alpha a + sigma eps for a ~ N(MEAN, SPREAD^2)."""
    alpha, sigma, _ = noise_level(t)
    return (alpha.square() * SPREAD**2 + sigma.square()).sqrt()


def true_noise(x: Tensor, t: Tensor) -> Tensor:
    """E[eps | x_t]."""
    alpha, sigma, _ = noise_level(t)
    return sigma * (x - alpha * MEAN) / scale(t).square()


def along_the_flow(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The flow keeps each point at its quantile."""
    return noise_level(end).alpha * MEAN + scale(end) * (x - noise_level(start).alpha * MEAN) / scale(start)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_schedule_at_hand_worked_times() -> None:
    alpha, sigma, log_ratio = noise_level(double(1.0, 0.5, 1e-3))
    logs = [-19.9 / 4 - 0.05, -19.9 / 16 - 0.025, -19.9e-6 / 4 - 5e-5]
    assert alpha.flatten().tolist() == pytest.approx([math.exp(v) for v in logs], rel=1e-12)
    assert alpha.flatten().tolist() == pytest.approx([0.006571, 0.281183, 0.999945], abs=1e-6)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(alpha))
    torch.testing.assert_close(log_ratio, (alpha / sigma).log())


def test_single_precision_keeps_the_small_noise() -> None:
    single, exact = noise_level(torch.tensor([[EARLIEST]])), noise_level(double(EARLIEST))
    assert float(single.sigma) == pytest.approx(float(exact.sigma), rel=1e-6)
    assert float(single.log_ratio) == pytest.approx(float(exact.log_ratio), rel=1e-6)


def test_trained_times_leave_out_the_first_thousandth() -> None:
    assert trained_times(double(0.0, 0.5)).flatten().tolist() == pytest.approx([1e-3, 0.5005])


def solve(intervals: int, end: float = EARLIEST) -> tuple[float, list[float]]:
    """The largest error, and the times at which the network was asked."""
    asked = []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t[0]))
        return true_noise(x, t)

    x = double(-2.0, -0.3, 0.0, 1.5)
    start, stop = torch.ones_like(x), torch.full_like(x, end)
    found = dpm_solver(predict, x, uniform_grid(start, stop, intervals))
    return float((found - along_the_flow(x, start, stop)).abs().max()), asked


@pytest.mark.parametrize("intervals", [(160, 320, 640), (161, 321, 641)], ids=["even", "odd"])
def test_solver_is_of_second_order_and_its_last_intervals_of_first(intervals: tuple[int, ...]) -> None:
    errors = [solve(n, end=0.2)[0] for n in intervals]
    ratios = [a / b for a, b in pairwise(errors)]
    assert all(3.8 < ratio < 4.2 for ratio in ratios), ratios
    single = [solve(1, end=end)[0] for end in (0.999, 0.9995)]  # One step of first order: its local error is second.
    assert single[0] / single[1] == pytest.approx(4.0, rel=0.05)


def test_one_evaluation_at_each_time_but_the_last() -> None:
    for intervals in (15, 16):
        _, asked = solve(intervals)
        assert asked == pytest.approx([1 - (1 - EARLIEST) * i / intervals for i in range(intervals)])


def test_lands_on_the_data_as_the_grid_gets_finer() -> None:
    errors = [solve(n)[0] for n in (15, 61, 241, 961)]
    assert all(after < before / 3 for before, after in pairwise(errors)), errors
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("times", [(0.9, 0.7, 0.4, 0.1), (0.9, 0.7, 0.4, 0.2, 0.1), (0.9, 0.4, 0.1), (0.9, 0.1)])
def test_steps_equal_the_formulas_written_out(times: tuple[float, ...]) -> None:
    """Steps of second order over two intervals, then one of first order, or two if the number is even, in floats."""
    log_alpha = lambda t: -(t**2) * 19.9 / 4 - 0.05 * t
    alpha = lambda t: math.exp(log_alpha(t))
    sigma = lambda t: math.sqrt(1 - alpha(t) ** 2)
    lam = lambda t: math.log(alpha(t) / sigma(t))
    eps = lambda x, t: math.sin(3 * x) + 0.5 * t
    data = lambda x, t: (x - sigma(t) * eps(x, t)) / alpha(t)

    def first(x: float, s: float, t: float, estimate: float) -> float:
        return sigma(t) / sigma(s) * x - alpha(t) * (math.exp(lam(s) - lam(t)) - 1) * estimate

    def second(x: float, s: float, u: float, t: float) -> float:
        r = (lam(u) - lam(s)) / (lam(t) - lam(s))
        x_u = first(x, s, u, data(x, s))
        return first(x, s, t, data(x, s) + (data(x_u, u) - data(x, s)) / (2 * r))

    x, left = 0.8, list(times)
    while len(left) > 3:
        x, left = second(x, *left[:3]), left[2:]
    for s, t in pairwise(left):
        x = first(x, s, t, data(x, s))
    predict = lambda x, t: torch.sin(3 * x) + 0.5 * t
    found = dpm_solver(predict, double(0.8), double(*times)[:, None])
    assert float(found) == pytest.approx(x, rel=1e-10)
