"""Log-probabilities against torch.distributions, in double precision; Q terms of ensembles, advantage weights."""

import math

import pytest
import torch
from stubs import view
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from flowpolicies.core import Batch, Networks, ReplayedNoise
from flowpolicies.losses import (
    advantage_weights,
    flow_matching,
    gaussian_log_prob,
    maximise_q,
    squashed_log_prob,
    squashed_sample,
)


@pytest.fixture
def head() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 3, dtype=torch.float64), 0.5 * torch.randn(6, 3, dtype=torch.float64)


def batch(n: int) -> Batch:
    zeros, ones = torch.zeros(n, 1), torch.ones(n)
    return Batch(zeros, ones[:, None] * torch.arange(n)[:, None], zeros, zeros, ones, ones, ones, ones[:, None])


def test_gaussian_log_probability(head) -> None:
    actions = torch.randn(6, 3, dtype=torch.float64)
    expected = Independent(Normal(head[0], head[1].exp()), 1).log_prob(actions)
    torch.testing.assert_close(gaussian_log_prob(head, actions), expected)


def test_standard_deviation_one_gives_half_the_squared_distance() -> None:
    zeros = torch.zeros(1, 3)
    log_prob = gaussian_log_prob((zeros, zeros), torch.tensor([[1.0, 2.0, 0.0]]))
    assert float(log_prob) == pytest.approx(-0.5 * 5 - 1.5 * math.log(2 * math.pi))


def test_squashed_sample_and_log_probability(head) -> None:
    squashed = TransformedDistribution(Independent(Normal(head[0], head[1].exp()), 1), TanhTransform())
    eps = torch.randn(6, 3, dtype=torch.float64)
    actions, log_probs = squashed_sample(head, eps)
    torch.testing.assert_close(actions, (head[0] + head[1].exp() * eps).tanh())
    torch.testing.assert_close(log_probs, squashed.log_prob(actions))
    torch.testing.assert_close(squashed_log_prob(head, actions, margin=0.0), log_probs)


def test_gradient_of_the_sampled_log_probability_is_that_of_the_density(head) -> None:
    mean, log_std = (part.clone().requires_grad_() for part in head)
    eps = torch.randn(6, 3, dtype=torch.float64)
    ours = torch.autograd.grad(squashed_sample((mean, log_std), eps)[1].sum(), [mean, log_std])
    squashed = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), TanhTransform(cache_size=1))
    sample = (mean + log_std.exp() * eps).tanh()
    theirs = torch.autograd.grad(squashed.log_prob(sample).sum(), [mean, log_std])
    torch.testing.assert_close(ours, theirs)


def test_squashed_log_probability_is_finite_at_the_bounds_and_far_from_the_mean() -> None:
    sharp = torch.zeros(1, 2), torch.full((1, 2), -20.0)
    at_the_bound = squashed_log_prob(sharp, torch.tensor([[1.0, -1.0]]))
    assert at_the_bound.isfinite().all()
    torch.testing.assert_close(at_the_bound, squashed_log_prob(sharp, torch.tensor([[1 - 1e-5, 1e-5 - 1]])))
    assert squashed_sample((torch.full((1, 2), 30.0), torch.zeros(1, 2)), torch.zeros(1, 2))[1].isfinite().all()


def test_q_term_of_the_minimum_and_of_the_lower_bound() -> None:
    critic = lambda s, a: torch.stack([a[:, 0], 3 * a[:, 0] - 1])
    nets = Networks(*(view(critic=critic) for _ in range(3)))
    actions = torch.tensor([[0.25], [0.75]], requires_grad=True)
    least = maximise_q(nets, batch(2), actions, q_agg="min")
    assert float(least.detach()) == pytest.approx(-(-0.25 + 0.75) / 2)
    (slope,) = torch.autograd.grad(least, actions)
    torch.testing.assert_close(slope, torch.tensor([[-1.5], [-0.5]]))
    bound = maximise_q(nets, batch(2), actions, normalize=True, rho=0.5)
    values = [0.0 - 0.5 * 0.25, 1.0 - 0.5 * 0.25]
    assert float(bound.detach()) == pytest.approx(-sum(values) / (0.125 + 0.875))


def test_advantage_weights_are_capped_at_100() -> None:
    weights = advantage_weights(torch.tensor([0.0, 0.5, -0.5, 1e3]), 2.0)
    torch.testing.assert_close(weights, torch.tensor([1.0, math.e, 1 / math.e, 100.0]))


def test_weights_of_flow_matching_multiply_rows() -> None:
    noise = ReplayedNoise(1, [torch.zeros(3, 1), torch.zeros(3, 1)])
    loss = flow_matching(lambda s, x, t: torch.zeros_like(x), batch(3), noise, torch.tensor([5.0, 10.0, 0.5]))
    assert float(loss) == pytest.approx((10 * 1 + 0.5 * 4) / 3)
