"""Log-probabilities against torch.distributions, in double precision."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from flowpolicies.losses import gaussian_log_prob, squashed_log_prob, squashed_sample


@pytest.fixture
def head() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 3, dtype=torch.float64), 0.5 * torch.randn(6, 3, dtype=torch.float64)


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
