"""Guided sampling that survives a bad critic (rql_diffusion_family 11.4)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.views import View
from flowpolicies.flows import action_gradient, unit_grid
from flowpolicies.samplers.flow import Schedule, guidance_schedule


@final
@dataclass
class GuidanceMonitor:
    """What the robust sampler saw and how far it has turned guidance down. The one mutable part of a sampler.

    `scale` starts at 1; it is halved when the running mean of the gradient norm exceeds `alarm`, and grows by 1 % per
    call up to 1 when the mean is below half of it.
    """

    alarm: float = 100.0
    """Gradient norm above which guidance is turned down."""
    memory: float = 0.5
    """Decay of the running mean over calls."""
    scale: float = 1.0
    """Factor of the guidance."""
    norm_running: float | None = None
    """Running mean of the gradient norm; None before the first call."""
    norm_mean: float = 0.0
    """Mean gradient norm of the last call; infinite if none was finite, as is `norm_max`."""
    norm_max: float = 0.0
    """Largest finite gradient norm of the last call."""
    reduced: float = 0.0
    """Share of (row, step) pairs whose gradient was reduced, in the last call."""
    non_finite: float = 0.0
    """Share of (row, step) pairs that were not finite, in the last call."""

    def update(self, norms: Tensor, reduced: Tensor, bad: Tensor) -> None:
        """Takes the norms `[K, *, 1]` and the two masks of one call."""
        finite = norms[norms.isfinite()]
        self.norm_mean = float(finite.mean()) if finite.numel() else float("inf")
        self.norm_max = float(finite.max()) if finite.numel() else float("inf")
        self.reduced, self.non_finite = float(reduced.float().mean()), float(bad.float().mean())
        before = self.norm_mean if self.norm_running is None else self.norm_running
        self.norm_running = self.memory * before + (1 - self.memory) * self.norm_mean
        if self.norm_running > self.alarm:
            self.scale *= 0.5
        elif self.norm_running < 0.5 * self.alarm:
            self.scale = min(1.0, 1.01 * self.scale)


@final
@dataclass(frozen=True)
class RobustGuided:
    """`Guided` with clamped states, reduced gradients and skipped non-finite steps.

    With `adaptive=False`, `limit=inf` and `clip=None` it equals `Guided`.
    """

    field: str = "actor_flow"
    """The velocity field."""
    critic: str = "critic"
    """The critic whose ensemble mean guides."""
    steps: int = 10
    """Euler steps."""
    beta: float = 1.0
    """Guidance strength."""
    schedule: Schedule = "constant"
    """How guidance grows along the flow."""
    adaptive: bool = True
    """Reduce gradients longer than the monitor's alarm, row by row, and the guidance as a whole when that persists."""
    limit: float = 5.0
    """States are clamped to [-limit, limit]."""
    clip: float | None = None
    """Clip each row's gradient norm; None: no clipping."""
    normalize_q: bool = False
    """Divide beta by mean |Q|, so that it is comparable across reward scales."""
    monitor: GuidanceMonitor = dataclasses.field(default_factory=GuidanceMonitor, compare=False)
    """What was seen; shared by copies of this sampler."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        x = noise.actions(observations.shape[:-1])
        velocity_field, critic = nets[self.field].given(observations), nets[self.critic].given(observations)
        grid = unit_grid(x, self.steps)
        seen: list[tuple[Tensor, Tensor, Tensor]] = []
        for t, dt in zip(grid[:-1], grid.diff(dim=0), strict=True):
            velocity = velocity_field(x, t)
            at = x.clamp(-self.limit, self.limit)
            gradient = action_gradient(critic, at)
            norm = gradient.norm(dim=-1, keepdim=True)
            bad = ~(gradient.isfinite().all(-1, keepdim=True) & velocity.isfinite().all(-1, keepdim=True))
            weight, reduced = self._weight(norm, guidance_schedule(t, self.schedule))
            if self.normalize_q:
                weight = weight / (critic(at).abs().mean() + 1e-6)
            if self.clip is not None:
                gradient = gradient * (self.clip / norm).clamp(max=1.0)
            guided = x + dt * (velocity + weight * gradient)
            x = torch.where(bad, x + dt * velocity.nan_to_num(0.0, 0.0, 0.0), guided).clamp(-self.limit, self.limit)
            seen.append((norm, reduced, bad))
        if self.adaptive:
            self.monitor.update(*(torch.stack(column) for column in zip(*seen, strict=True)))
        return x.clamp(-1, 1)

    def _weight(self, norm: Tensor, schedule: Tensor) -> tuple[Tensor, Tensor]:
        if not self.adaptive:
            return self.beta * schedule, torch.zeros_like(norm, dtype=torch.bool)
        factor = (self.monitor.alarm / norm).clamp(max=1.0)
        return self.beta * schedule * self.monitor.scale * factor, factor < 1
