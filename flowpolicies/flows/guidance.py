"""Gradients of critics with respect to actions, at one point and along a flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from flowpolicies.core.types import Velocity
from flowpolicies.core.views import is_transformed


def action_gradient(q: Callable[..., Tensor], actions: Tensor, *times: Tensor) -> Tensor:
    """grad_a mean_e Q_e(s, a), row by row, `[*, A]`.

    Args:
        q: (actions, *times) -> `[E, *]`, a critic at given observations: `nets.frozen.critic.given(observations)`.
    """
    return pull_back(lambda a: q(a, *times).mean(0), actions)


def pull_back(function: Callable[[Tensor], Tensor], x: Tensor, cotangent: Tensor | None = None) -> Tensor:
    """J^T c with J = d function / dx at x, `[*, A]`: the gradient of the sum of c times the function.

    In losses that are vectorised or compiled functorch computes it, otherwise autograd, which is faster. It can be
    differentiated again if x requires gradients.

    Args:
        cotangent: c, of the shape of the function's value; None: ones.
    """
    if is_transformed() or torch.is_inference_mode_enabled():  # In inference mode autograd records nothing.
        value, transposed, *_ = torch.func.vjp(function, x)
        gradient: Tensor = transposed(torch.ones_like(value) if cotangent is None else cotangent)[0]
        return gradient
    with torch.enable_grad():
        at = x if x.requires_grad else x.detach().requires_grad_()
        value = function(at)
        weights = torch.ones_like(value) if cotangent is None else cotangent
        return torch.autograd.grad(value, at, weights, create_graph=x.requires_grad)[0]


def lean_adjoint(base: Velocity, states: Sequence[Tensor], grid: Tensor, terminal: Tensor) -> Tensor:
    """a_i = a_{i+1} + h J_i^T a_{i+1}, J_i = d/dx [2 v_base(x, t_{i+1}) - x / t_{i+1}] at x_i; backwards from a_T.

    One vector-Jacobian product per step.

    Args:
        base: v_base, without gradient to its parameters.
        states: x_0..x_T, each `[*, A]`.
        grid: their times `[T + 1, *, 1]`.
        terminal: a_T `[*, A]`.

    Returns:
        a_0..a_{T-1}, `[T, *, A]`.
    """
    adjoint, adjoints = terminal, []
    # As in QAM's code: left states with right times, on the last interval too, where the SDE takes an ODE step
    # (docs/algorithms/qam.md, "Where code and paper differ").
    for x, t, h in reversed(list(zip(states[:-1], grid[1:], grid.diff(dim=0), strict=True))):
        adjoint = adjoint + h * pull_back(partial(_memoryless_drift, base, t), x, adjoint)
        adjoints.append(adjoint)
    return torch.stack(adjoints[::-1])


def _memoryless_drift(base: Velocity, t: Tensor, x: Tensor) -> Tensor:
    return 2 * base(x, t) - x / t
