"""Euler steps that leave out rows which have arrived."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from flowpolicies.core.views import BoundNetwork, GivenObservations
from flowpolicies.flows import euler, euler_until_arrival, leading_grid, remaining_grid

SIZE = 200


class Field(nn.Module):
    """A velocity that depends on everything, and counts the rows that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.rows = 0

    def forward(self, observations: Tensor, x: Tensor, t: Tensor) -> Tensor:
        self.rows += len(x)
        return torch.sin(self.weight * x + observations[:, :2]) - t * x


def case() -> tuple[Field, GivenObservations, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.rand(shape, generator=generator, dtype=torch.float64)
    field = Field()
    times = torch.cat([draw(SIZE - 3, 1), torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)])
    return field, GivenObservations(BoundNetwork(field), draw(SIZE, 4)), draw(SIZE, 2), times


@pytest.mark.parametrize("make_grid", [remaining_grid, leading_grid])
def test_the_ends_and_their_gradients_are_those_of_euler(make_grid) -> None:
    field, policy, x, t = case()
    x.requires_grad_()
    ends = [integrate(policy, x, make_grid(t, 10)) for integrate in (euler, euler_until_arrival)]
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(end.square().sum(), (x, field.weight)) for end in ends]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make_grid", [remaining_grid, leading_grid])
def test_about_half_of_the_rows_are_evaluated(make_grid) -> None:
    field, policy, x, t = case()
    euler_until_arrival(policy, x, make_grid(t, 10))
    assert 0.5 * 10 * SIZE < field.rows < 0.75 * 10 * SIZE


def test_rows_that_are_there_from_the_start_stay() -> None:
    field, policy, x, t = case()
    torch.testing.assert_close(euler_until_arrival(policy, x, remaining_grid(torch.ones_like(t), 10)), x)
    assert field.rows == 0


def test_vectorised_code_gives_the_same() -> None:
    field, policy, x, t = case()
    integrated = lambda x, t: euler_until_arrival(policy, x, remaining_grid(t, 10))
    two = vmap(integrated)(torch.stack([x, -x]), torch.stack([t, 1 - t]))  # As seeds are, whose times differ.
    torch.testing.assert_close(two[1], euler(policy, -x, remaining_grid(1 - t, 10)))
    assert field.rows > 0
