"""Diffusion with finitely many noise levels: schedules, noising, and reverse steps.

Ho et al., "Denoising Diffusion Probabilistic Models", https://arxiv.org/abs/2006.11239

x_i = sqrt(abar_i) x_1 + sqrt(1 - abar_i) eps for levels i = 0..T-1, from the least noisy to the noisiest. A network
predicts eps. It receives the raw index of the level, which some papers count from 0 and others from 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.types import Velocity

BetaSchedule = Literal["vp", "linear", "cosine"]
ReverseRule = Literal["ancestral", "posterior", "direct", "jump", "ddim"]


def betas(schedule: BetaSchedule, steps: int) -> tuple[float, ...]:
    """beta_i = 1 - alpha_i, from the least noisy level to the noisiest.

    vp: alpha_t = exp(-b / T - (B - b) (2t - 1) / (2 T^2)), b = 0.1, B = 10. linear: from 1e-4 to 2e-2.
    cosine: 1 - f(t / T) / f((t - 1) / T) in [0, 0.999], f(u) = cos^2(pi/2 (u + 0.008) / 1.008).
    """
    if steps < 1:
        raise ValueError(f"a diffusion needs at least one step, got {steps}")
    if schedule == "linear":
        return tuple(torch.linspace(1e-4, 2e-2, steps, dtype=torch.float64).tolist())
    if schedule == "cosine":
        f = [math.cos(math.pi / 2 * (t / steps + 0.008) / 1.008) ** 2 for t in range(steps + 1)]
        return tuple(min(max(1 - after / before, 0.0), 0.999) for before, after in pairwise(f))
    return tuple(1 - math.exp(-0.1 / steps - 9.9 * (2 * t - 1) / (2 * steps**2)) for t in range(1, steps + 1))


class Levels(NamedTuple):
    """The constants of each noise level, `[T]` each."""

    beta: Tensor
    """Variance of the noise that a level adds to the one before."""
    abar: Tensor
    """Share of the action's variance that is left at the level."""
    abar_before: Tensor
    """Value of `abar` at the next less noisy level; 1 before the first."""


class Noised(NamedTuple):
    """An action at a random noise level."""

    x: Tensor
    """The noisy action x_t, `[*, A]`."""
    t: Tensor
    """Raw index of the level, as the network receives it, `[*, 1]`."""
    eps: Tensor
    """The noise in x_t, `[*, A]`."""
    abar: Tensor
    """Value of `Levels.abar` at the level, `[*, 1]`."""
    beta: Tensor
    """Value of `Levels.beta` at the level, `[*, 1]`."""


@final
@dataclass(frozen=True)
class Diffusion:
    """A noising process with finitely many levels.

    Examples:
        >>> import torch
        >>> from flowpolicies.core import ZeroNoise
        >>> from flowpolicies.flows import Diffusion
        >>> diffusion = Diffusion(steps=20, schedule="cosine")
        >>> states, _ = diffusion.reverse(lambda x, t: x, torch.ones(8, 2), ZeroNoise(2))
        >>> len(states)  # from noise to an action
        21
    """

    steps: int = 5
    """Number T of noise levels."""
    schedule: BetaSchedule = "vp"
    """Noise schedule of the diffusion: how noise grows with the level."""
    first_index: Literal[0, 1] = 1
    """Index of the least noisy level, as the network receives it."""

    def levels(self, like: Tensor) -> Levels:
        """The constants of all levels, on the device of `like`."""
        beta = torch.tensor(betas(self.schedule, self.steps), dtype=torch.float64)
        abar = (1 - beta).cumprod(0)
        before = torch.cat([torch.ones_like(abar[:1]), abar[:-1]])
        columns = (column.to(like.dtype) for column in (beta, abar, before))
        return Levels(*(column.to(like.device, non_blocking=True) for column in columns))  # A GPU is not waited for.

    def noised(self, actions: Tensor, noise: Noise) -> Noised:
        """Each action at a random level. Draws the level, then eps."""
        level, eps = noise.integers(self.steps, actions.shape[:-1]), noise.actions(actions.shape[:-1])
        levels = self.levels(actions)
        abar, beta = levels.abar[level].unsqueeze(-1), levels.beta[level].unsqueeze(-1)
        index = (level + self.first_index).unsqueeze(-1).to(actions.dtype)
        return Noised(abar.sqrt() * actions + (1 - abar).sqrt() * eps, index, eps, abar, beta)

    def reverse(
        self,
        predict: Velocity,
        x: Tensor,
        noise: Noise,
        rule: ReverseRule = "ancestral",
        *,
        temperature: float = 1.0,
        bound: float | None = 1.0,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """From noise to an action, one step per level. Draws one z per step; the last step does not use its own.

        Args:
            predict: (x `[*, A]`, index `[*, 1]`) -> predicted eps `[*, A]`.
            x: `[*, A]`, standard normal.
            rule: see `REVERSE_RULES`.
            temperature: scale of z.
            bound: actions lie in [-bound, bound], and estimates are clipped to this range; None: no clipping.

        Returns:
            T + 1 states from noise to action, and the T predictions at the first T of them.
        """
        step, levels = REVERSE_RULES[rule], self.levels(x)
        clip: Callable[[Tensor], Tensor] = (lambda y: y) if bound is None else (lambda y: y.clamp(-bound, bound))
        states, predictions = [x], []
        for i in reversed(range(self.steps)):
            z = noise.actions(x.shape[:-1])
            eps = predict(states[-1], torch.full_like(x[..., :1], i + self.first_index))
            predictions.append(eps)
            scaled = temperature * z if i > 0 else torch.zeros_like(z)
            states.append(step(states[-1], eps, scaled, Levels(*(column[i] for column in levels)), clip))
        return states, predictions


def clean_estimate(x: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """(x - sqrt(1 - abar) eps) / sqrt(abar): the action, if eps is the noise in x."""
    return (x - (1 - abar).sqrt() * eps) / abar.sqrt()


def posterior_mean(x: Tensor, clean: Tensor, level: Levels) -> Tensor:
    """Mean of the next less noisy level, given x and the clean action."""
    beta, abar, before = level
    return (before.sqrt() * beta * clean + (1 - beta).sqrt() * (1 - before) * x) / (1 - abar)


Clip = Callable[[Tensor], Tensor]


def _ancestral(x: Tensor, eps: Tensor, z: Tensor, level: Levels, clip: Clip) -> Tensor:
    return posterior_mean(x, clip(clean_estimate(x, eps, level.abar)), level) + level.beta.sqrt() * z


def _posterior(x: Tensor, eps: Tensor, z: Tensor, level: Levels, clip: Clip) -> Tensor:
    variance = level.beta * (1 - level.abar_before) / (1 - level.abar)
    return posterior_mean(x, clip(clean_estimate(x, eps, level.abar)), level) + variance.sqrt() * z


def _direct(x: Tensor, eps: Tensor, z: Tensor, level: Levels, clip: Clip) -> Tensor:
    mean = (x - level.beta / (1 - level.abar).sqrt() * eps) / (1 - level.beta).sqrt()
    return clip(mean + level.beta.sqrt() * z)


def _jump(x: Tensor, eps: Tensor, z: Tensor, level: Levels, clip: Clip) -> Tensor:
    return clip(clean_estimate(x, eps, level.abar) + level.beta.sqrt() * z)


def _ddim(x: Tensor, eps: Tensor, z: Tensor, level: Levels, clip: Clip) -> Tensor:
    scaled = (x - (1 - level.abar).sqrt() * eps) / (1 - level.beta).sqrt()
    return clip(scaled + (1 - level.abar_before).sqrt() * eps)


REVERSE_RULES: dict[ReverseRule, Callable[[Tensor, Tensor, Tensor, Levels, Clip], Tensor]] = {
    "ancestral": _ancestral,
    "posterior": _posterior,
    "direct": _direct,
    "jump": _jump,
    "ddim": _ddim,
}
"""Reverse steps by name. ancestral (DAC, BDPO): the posterior mean at the clipped estimate of the action, variance
beta. posterior (Diffusion-QL): the same mean, with the posterior's variance. direct (IDQL, QSM as published): the mean
without an estimate, and each state is clipped. jump (QSM in QAM's code): the estimate of the action, variance beta.
ddim: no noise."""
