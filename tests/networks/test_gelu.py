"""GELU by hand against torch's."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, vmap
from torch.nn import functional as F

from flowpolicies.networks.mlp import _SMALL, gelu

SHAPES = [(3,), (_SMALL // 64 + 1, 64), (3, _SMALL, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_equal_torchs(shape: tuple[int, ...]) -> None:
    x = (torch.randn(shape, dtype=torch.float64) * 4).requires_grad_()
    ours, theirs = gelu(x), F.gelu(x, approximate="tanh")
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    weights = torch.randn(shape, dtype=torch.float64)
    (a,), (b,) = (torch.autograd.grad(y, x, weights) for y in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(gelu(x), theirs.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1e4, 1e15, float("inf")])
def test_large_inputs_are_as_torchs(scale: float) -> None:
    x = torch.full((_SMALL,), scale).requires_grad_()
    assert torch.equal(gelu(x), F.gelu(x, approximate="tanh"))
    assert gelu(-x.detach()).nan_to_num(0.0).abs().max() == 0
    if scale < float("inf"):
        assert torch.autograd.grad(gelu(x).sum(), x)[0].isfinite().all()


def test_second_derivatives_equal_torchs() -> None:
    x = torch.randn(_SMALL + 1, dtype=torch.float64, requires_grad=True)

    def second(f: object) -> torch.Tensor:
        (first,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)  # type: ignore[operator]
        return torch.autograd.grad(first.square().sum(), x)[0]

    torch.testing.assert_close(second(gelu), second(lambda x: F.gelu(x, approximate="tanh")), rtol=1e-9, atol=1e-10)


@pytest.mark.filterwarnings("error:.*performance drop")
def test_it_can_be_vectorised_and_differentiated_by_functorch() -> None:
    x = torch.randn(4, _SMALL + 1, dtype=torch.float64)
    ours = vmap(grad(lambda x: gelu(x).sum()))(x)
    theirs = vmap(grad(lambda x: F.gelu(x, approximate="tanh").sum()))(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_little_is_kept_for_the_backward_pass() -> None:
    kept = []
    x = torch.randn(_SMALL, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        gelu(x * 1)
    assert sum(t.numel() for t in kept) <= 2 * x.numel()
