"""Gradients of critics with respect to actions, by autograd and by functorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from flowpolicies.flows import action_gradient, lean_adjoint, pull_back, unit_grid

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)


def q(x: Tensor) -> Tensor:
    """Two members, `[2, *]`."""
    return torch.stack([x.pow(3).sum(-1), (2 * x).sin().sum(-1)])


def by_hand(x: Tensor) -> Tensor:
    return (3 * x.square() + 2 * (2 * x).cos()) / 2


@pytest.mark.parametrize("enabled", [True, False])
def test_the_gradient_is_that_of_the_mean_over_members(enabled: bool) -> None:
    with torch.set_grad_enabled(enabled):
        found = action_gradient(q, X)
    torch.testing.assert_close(found, by_hand(X))
    assert not found.requires_grad


def test_in_inference_mode_it_is_the_same() -> None:
    with torch.inference_mode():
        torch.testing.assert_close(action_gradient(q, X.clone()), by_hand(X))


def test_inside_functorch_it_is_the_same() -> None:
    torch.testing.assert_close(vmap(lambda x: action_gradient(q, x))(X[:, None])[:, 0], by_hand(X))
    twice = grad(lambda x: action_gradient(q, x).sum())(X)
    torch.testing.assert_close(twice, (6 * X - 4 * (2 * X).sin()) / 2)


def test_it_can_be_differentiated_again() -> None:
    x = X.clone().requires_grad_()
    (twice,) = torch.autograd.grad(action_gradient(q, x).sum(), x)
    torch.testing.assert_close(twice, (6 * X - 4 * (2 * X).sin()) / 2)


def test_the_weights_of_the_critic_get_no_gradient() -> None:
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    action_gradient(lambda x: (weight * x.square()).sum(-1)[None], X)
    assert weight.grad is None


def test_pull_back_is_the_transposed_jacobian() -> None:
    matrix, cotangent = torch.randn(3, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(pull_back(lambda x: x @ matrix.mT, X, cotangent), cotangent @ matrix)


def test_the_adjoint_of_a_linear_base_is_as_by_hand() -> None:
    grid, terminal = unit_grid(X, 2), torch.ones_like(X)
    found = lean_adjoint(lambda x, t: 0.5 * x, [X, X, X], grid, terminal)
    last = 1 + 0.5 * (2 * 0.5 - 1 / 1.0)
    torch.testing.assert_close(found, torch.stack([torch.full_like(X, last * (1 + 0.5 * (1 - 2))), last * terminal]))
