"""Shared equations against numbers worked out by hand."""

import math

import pytest
import torch
from batches import batch, column
from stubs import view

from flowpolicies.core import Networks, ReplayedNoise
from flowpolicies.losses import (
    FLOW_MATCHING,
    advantage_weights,
    aggregate,
    expectile,
    flow_matching,
    iql_value_loss,
    maximize_q,
    td_loss,
)


def networks(**fns) -> Networks:
    return Networks(view(**fns), view(**fns), view(**fns))


BATCH = batch(
    column(1.0, 2.0),
    rewards=torch.tensor([1.0, -1.0]),
    discounts=torch.tensor([0.9, 0.0]),
    valid=torch.tensor([1.0, 0.0]),
)


def test_aggregation_uses_the_population_deviation() -> None:
    q = torch.tensor([[1.0], [3.0]])
    assert float(aggregate(q)) == 2.0
    assert float(aggregate(q, rho=0.5)) == pytest.approx(2.0 - 0.5 * 1.0)
    assert float(aggregate(q, "min")) == 1.0


def test_td_target_discount_and_valid() -> None:
    critic = lambda s, a: torch.stack([a[:, 0], 3 * a[:, 0]])
    loss, metrics = td_loss(networks(critic=critic), BATCH, torch.tensor([[2.0], [5.0]]))
    target = 1 + 0.9 * 4.0
    assert float(loss) == pytest.approx(((1 - target) ** 2 + (3 - target) ** 2) / 4)
    assert float(metrics["target_mean"]) == pytest.approx((target - 1) / 2)


def test_expectile_weights_positive_differences() -> None:
    torch.testing.assert_close(expectile(torch.tensor([2.0, -2.0, 0.0]), 0.9), torch.tensor([3.6, 0.4, 0.0]))


def test_iql_value_ignores_valid() -> None:
    nets = networks(critic=lambda s, a: torch.stack([a[:, 0], a[:, 0] + 2]), value=lambda s: torch.zeros(2))
    loss, _ = iql_value_loss(nets, BATCH, 0.9, "min", 0.0)
    assert float(loss) == pytest.approx(0.9 * (1 + 4) / 2)


def test_flow_matching_divides_by_the_batch_not_by_the_valid_rows() -> None:
    x_0, t = torch.tensor([[0.5], [0.5]]), torch.tensor([[0.2], [0.2]])
    loss = flow_matching(lambda s, x, t: torch.zeros_like(x), BATCH, ReplayedNoise(1, [x_0, t]))
    assert float(loss) == pytest.approx((1.0 - 0.5) ** 2 / 2)


def test_flow_matching_of_steps_takes_each_step_inside_the_episode_whatever_the_row_s_weight() -> None:
    data = batch(torch.tensor([[1.0, 3.0], [2.0, 9.0]]), valid=torch.tensor([1.0, 0.0]))
    data = data._replace(action_mask=torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    noise = lambda: ReplayedNoise(2, [torch.zeros(2, 2), torch.zeros(2, 1)])
    still = lambda s, x, t: torch.zeros_like(x)
    assert float(FLOW_MATCHING["inside"](still, data, noise())) == pytest.approx((1 + 9 + 4) / 4)
    assert float(FLOW_MATCHING["whole_chunks"](still, data, noise())) == pytest.approx((1 + 9) / 4)


def test_q_term_gives_no_gradient_where_actions_saturate() -> None:
    actions = torch.tensor([[0.5], [1.5]], requires_grad=True)
    nets = networks(critic=lambda s, a: torch.stack([a[:, 0], 3 * a[:, 0]]))
    loss = maximize_q(nets, BATCH, actions)
    assert float(loss) == pytest.approx(-(2 * 0.5 + 2 * 1.0) / 2)
    loss.backward()
    torch.testing.assert_close(actions.grad, torch.tensor([[-1.0], [0.0]]))
    assert float(maximize_q(nets, BATCH, actions, normalize=True)) == pytest.approx(-1.0)


def test_q_term_of_the_minimum_and_of_the_lower_bound() -> None:
    critic = lambda s, a: torch.stack([a[:, 0], 3 * a[:, 0] - 1])
    nets = networks(critic=critic)
    actions = torch.tensor([[0.25], [0.75]], requires_grad=True)
    least = maximize_q(nets, batch(column(0.0, 1.0)), actions, q_agg="min")
    assert float(least.detach()) == pytest.approx(-(-0.25 + 0.75) / 2)
    (slope,) = torch.autograd.grad(least, actions)
    torch.testing.assert_close(slope, torch.tensor([[-1.5], [-0.5]]))
    bound = maximize_q(nets, batch(column(0.0, 1.0)), actions, normalize=True, rho=0.5)
    values = [0.0 - 0.5 * 0.25, 1.0 - 0.5 * 0.25]
    assert float(bound.detach()) == pytest.approx(-sum(values) / (0.125 + 0.875))


def test_advantage_weights_are_capped_at_100() -> None:
    weights = advantage_weights(torch.tensor([0.0, 0.5, -0.5, 1e3]), 2.0)
    torch.testing.assert_close(weights, torch.tensor([1.0, math.e, 1 / math.e, 100.0]))


def test_weights_of_flow_matching_multiply_rows() -> None:
    data, weights = batch(column(0.0, 1.0, 2.0)), torch.tensor([5.0, 10.0, 0.5])
    noise = ReplayedNoise(1, [torch.zeros(3, 1), torch.zeros(3, 1)])
    loss = flow_matching(lambda s, x, t: torch.zeros_like(x), data, noise, weights)
    assert float(loss) == pytest.approx((10 * 1 + 0.5 * 4) / 3)
