"""Single reverse steps of a diffusion, from any level, and their divergence from the steps of another diffusion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flowpolicies.core.types import Velocity
from flowpolicies.flows.diffusion import REVERSE_RULES, Diffusion, Levels


def reverse_step(diffusion: Diffusion, x: Tensor, t: Tensor, eps: Tensor, z: Tensor) -> Tensor:
    """One ancestral step from x_t to x_{t-1}, the estimate of the action clipped to [-1, 1]; no noise in the last step.

    Args:
        x: `[*, A]`.
        t: raw indices `[*, 1]`.
        eps: predicted noise `[*, A]`; gradient flows to it.
        z: standard normal `[*, A]`.
    """
    last = t == diffusion.first_index
    return REVERSE_RULES["ancestral"](x, eps, z * ~last, _levels_at(diffusion, t), lambda clean: clean.clamp(-1, 1))


def step_kl(diffusion: Diffusion, x: Tensor, t: Tensor, eps: Tensor, base: Velocity) -> Tensor:
    """beta |eps - eps_b|^2 / (2 (1 - beta)(1 - abar)), `[*]`: KL of two ancestral steps of variance beta, unclipped.

    Args:
        x, t, eps: as for `reverse_step`.
        base: (x, t) -> eps_b.
    """
    level = _levels_at(diffusion, t)
    weight = level.beta / (2 * (1 - level.beta) * (1 - level.abar))
    return (weight * (eps - base(x, t)).square()).sum(-1)


def path_kl(diffusion: Diffusion, states: Sequence[Tensor], predictions: Sequence[Tensor], base: Velocity) -> Tensor:
    """The sum of `step_kl` along what `Diffusion.reverse` returned, `[*]`."""
    # As in BDPO's code: the clipping of the estimate is ignored, and the last step counts although it adds no noise
    # (docs/algorithms/bdpo.md, "Where code and paper differ").
    kls = []
    for level, x, eps in zip(reversed(range(diffusion.steps)), states[:-1], predictions, strict=True):
        kls.append(step_kl(diffusion, x, torch.full_like(x[..., :1], level + diffusion.first_index), eps, base))
    return torch.stack(kls).sum(0)


def _levels_at(diffusion: Diffusion, t: Tensor) -> Levels:
    return Levels(*(column[t.long() - diffusion.first_index] for column in diffusion.levels(t)))
