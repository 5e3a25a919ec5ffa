"""Fine-tuning of a flow towards a critic along the memoryless SDE, shared by QAM and BAM.

Domingo-Enrich et al., "Adjoint Matching", https://arxiv.org/abs/2409.08861
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.types import Batch, Loss, Velocity
from flowpolicies.core.views import BoundNetwork, Config, Networks, View, loss_term
from flowpolicies.flows import action_gradient, lean_adjoint, memoryless_sde, memoryless_sigma, unit_grid


def slow_or_frozen(nets: Networks, slow: bool) -> View:
    """The slow copies, or the current weights without gradient."""
    return nets.target if slow else nets.frozen


def fine_tuned(actor: BoundNetwork, observations: Tensor, base: Velocity, residual: bool) -> Velocity:
    """The field that is fine-tuned: the actor's, or with `residual` the sum of `base` and the actor's."""
    fast = actor.given(observations)
    return (lambda x, t: base(x, t) + fast(x, t)) if residual else fast


def departure(actor: BoundNetwork, observations: Tensor, base: Velocity, residual: bool) -> Velocity:
    """v - v_base for the field v of `fine_tuned`; with `residual` it is the actor's output, which needs no base."""
    fast = actor.given(observations)
    return fast if residual else (lambda x, t: fast(x, t) - base(x, t))


def terminal_adjoint(q: Callable[[Tensor], Tensor], x: Tensor, clip: bool) -> Tensor:
    """-grad_x mean_e Q_e(s, clip(x)), `[*, A]`; zero along coordinates outside [-1, 1], unless `clip` is off."""
    return -action_gradient((lambda actions: q(actions.clamp(-1, 1))) if clip else q, x)


def adjoint_matching(drift: Velocity, states: Sequence[Tensor], grid: Tensor, adjoints: Tensor) -> Tensor:
    """mean_b sum_i |2 / sigma_i (v - v_base)(x_i, t_i) + sigma_i a_i|^2, least for v = v_base - sigma_i^2 a_i / 2.

    Args:
        drift: v - v_base, with gradient to the parameters of v; all times are one batched call.
        states: x_0..x_T of the SDE, without gradient.
        grid: their times `[T + 1, *, 1]`.
        adjoints: a_0..a_{T-1}, `[T, *, A]`.
    """
    x, t, sigma = torch.stack(list(states[:-1])), grid[:-1], memoryless_sigma(grid[:-1], grid.diff(dim=0))
    return (2 / sigma * drift(x, t) + sigma * adjoints).square().sum((0, -1)).mean()


@loss_term(trains="actor_fast")
def adjoint_loss(nets: Networks, batch: Batch, noise: Noise, cfg: Config) -> Loss:
    """sum_i |2 / sigma_i (v_fast - v_slow)(s, x_i, t_i) + sigma_i a_i|^2 along the memoryless SDE of v_fast.

    a_T = -inv_temp grad Q(s, x_T), pulled back through the drift of v_slow: `terminal_adjoint`, `lean_adjoint`.
    QAM's loss of the fine-tuned flow.
    """
    # As in QAM's code: the adjoint starts from the critics' mean without rho, and the loss has no factor h and is not
    # weighted by `valid` (docs/algorithms/qam.md, "Where code and paper differ").
    base = slow_or_frozen(nets, cfg.target_actor).actor_slow.given(batch.observations)
    x_0 = noise.actions(batch.actions.shape[:-1])
    grid = unit_grid(x_0, cfg.flow_steps)
    rolled_out = fine_tuned(nets.frozen.actor_fast, batch.observations, base, cfg.residual)
    states, _ = memoryless_sde(rolled_out, base, x_0, grid, noise)
    q = slow_or_frozen(nets, cfg.use_target_grad).critic.given(batch.observations)
    terminal = cfg.inv_temp * terminal_adjoint(q, states[-1], cfg.clip_adj)
    adjoints = lean_adjoint(base, states, grid, terminal)
    drift = departure(nets.online.actor_fast, batch.observations, base, cfg.residual)
    size = terminal.abs()
    metrics = {"terminal_mean": size.mean(), "terminal_max": size.max(), "terminal_std": size.std(correction=0)}
    return adjoint_matching(drift, states, grid, adjoints), metrics


def control_cost(base: Velocity, states: Sequence[Tensor], velocities: Sequence[Tensor], grid: Tensor) -> Tensor:
    """mean_b sum_{i<T-1} 2 / sigma_i^2 |v(x_i, t_i) - v_base(x_i, t_i)|^2: the cost of leaving the base.

    Args:
        states, velocities: as `memoryless_sde` returns them.
        grid: times `[T + 1, *, 1]`.
    """
    # As in QAM's code, the sum has no factor h, and leaves the last step out
    # (docs/algorithms/bam.md, "Where code and paper differ").
    weights = 2 / memoryless_sigma(grid[:-1], grid.diff(dim=0)).square()
    steps = zip(states, velocities, grid, weights, strict=False)
    costs = [weight * (velocity - base(x, t)).square() for x, velocity, t, weight in steps]
    return sum(costs, start=torch.zeros_like(states[0])).sum(-1).mean()
