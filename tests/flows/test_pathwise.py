"""Single reverse steps against `Diffusion.reverse`, and the divergence of two of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flowpolicies.core import ReplayedNoise
from flowpolicies.flows import REVERSE_RULES, Diffusion, path_kl, reverse_step, step_kl
from flowpolicies.flows.diffusion import Levels


def actor(x: Tensor, t: Tensor) -> Tensor:
    return 0.4 * x - 0.1 * t


def behavior(x: Tensor, t: Tensor) -> Tensor:
    return 0.3 * x + 0.05 * t * x.flip(-1)


def draws(steps: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(6, 2, generator=g, dtype=torch.float64) for _ in range(steps + 1)]


@pytest.mark.parametrize("first_index", [0, 1])
def test_step_after_step_is_the_reverse_chain(first_index: int) -> None:
    diffusion, (x, *zs) = Diffusion(4, first_index=first_index), draws(4)
    states, _ = diffusion.reverse(actor, x, ReplayedNoise(2, zs))
    for level, z, state in zip((3, 2, 1, 0), zs, states[1:], strict=True):
        t = torch.full_like(x[:, :1], level + first_index)
        x = reverse_step(diffusion, x, t, actor(x, t), z)
        torch.testing.assert_close(x, state)


def test_each_row_steps_from_its_own_level() -> None:
    diffusion, (x, z, _) = Diffusion(3), draws(2)
    t = torch.tensor([[1.0], [2.0], [3.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
    together = reverse_step(diffusion, x, t, actor(x, t), z)
    apart = [reverse_step(diffusion, *(rows[i : i + 1] for rows in (x, t, actor(x, t), z))) for i in range(6)]
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_divergence_is_that_of_two_gaussians(level: int) -> None:
    """Of variance beta, around the unclipped means of the two steps, by torch's own formula."""
    diffusion, x = Diffusion(3), draws(0)[0]
    t, step = torch.full_like(x[:, :1], level), REVERSE_RULES["ancestral"]
    at = Levels(*(column[level - 1] for column in diffusion.levels(x)))
    means = [step(x, eps(x, t), torch.zeros_like(x), at, lambda clean: clean) for eps in (actor, behavior)]
    kernels = [torch.distributions.Normal(mean, at.beta.sqrt()) for mean in means]
    expected = torch.distributions.kl_divergence(*kernels).sum(-1)
    found = step_kl(diffusion, x, t, actor(x, t), behavior)
    torch.testing.assert_close(found, expected)
    assert (found > 0).all()


def test_divergence_along_a_path_adds_up_and_vanishes_for_the_same_network() -> None:
    diffusion, (x, *zs) = Diffusion(5), draws(5)
    states, predictions = diffusion.reverse(actor, x, ReplayedNoise(2, zs))
    found = path_kl(diffusion, states, predictions, behavior)
    each = [
        step_kl(diffusion, x, torch.full_like(x[:, :1], 5 - i), eps, behavior)
        for i, (x, eps) in enumerate(zip(states[:5], predictions, strict=True))
    ]
    torch.testing.assert_close(found, torch.stack(each).sum(0))
    assert (path_kl(diffusion, states, predictions, actor) == 0).all()
