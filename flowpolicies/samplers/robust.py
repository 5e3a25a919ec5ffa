"""Guided sampling that tolerates a bad critic: large or non-finite gradients."""

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
    """Statistics of the gradients of `RobustGuided`, and its current reduction of the guidance. It is mutable.

    `scale` starts at 1; it is halved when the running mean of the gradient norm exceeds `alarm`, and grows by 1 % per
    call up to 1 when the mean is below half of it.

    Examples:
        >>> from flowpolicies import QFlow
        >>> from flowpolicies.samplers import GuidanceMonitor, RobustGuided
        >>> model = QFlow(env="Pendulum-v1")
        >>> model.policy.sampler = RobustGuided(beta=0.3, monitor=GuidanceMonitor(alarm=10.0))
        >>> action, _ = model.predict(model.observation_space.sample())
        >>> model.policy.sampler.monitor.scale  # less than 1 after large gradients
        1.0
    """

    alarm: float = 100.0
    """Gradient norm above which guidance is reduced."""
    memory: float = 0.5
    """Decay per call of the running mean."""
    scale: float = 1.0
    """Current factor of the guidance, at most 1."""
    norm_running: float | None = None
    """Running mean of the gradient norm; None before the first call."""
    norm_mean: float = 0.0
    """Mean gradient norm of the last call; infinite if none was finite, as is `norm_max`."""
    norm_max: float = 0.0
    """Largest finite gradient norm of the last call."""
    reduced: float = 0.0
    """Share of (row, step) pairs of the last call whose gradient was reduced."""
    non_finite: float = 0.0
    """Share of (row, step) pairs of the last call whose gradient or velocity was not finite."""

    def update(self, norms: Tensor, reduced: Tensor, bad: Tensor) -> None:
        """Updates the statistics from the norms `[K, *, 1]` and the two masks of one call."""
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
    """`Guided` with clamped states, reduced gradients, and no guidance in steps with non-finite values.

    With `adaptive=False`, `limit=inf` and `clip=None` it equals `Guided`.

    Examples:
        >>> from flowpolicies import QFlow
        >>> from flowpolicies.samplers import RobustGuided
        >>> model = QFlow(env="Pendulum-v1")
        >>> model.policy.sampler = RobustGuided(beta=0.3)
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    field: str = "actor_flow"
    """Name of the network that is the velocity field."""
    critic: str = "critic"
    """Name of the critic whose gradient, averaged over the ensemble, guides."""
    steps: int = 10
    """Number of Euler steps of the guided flow."""
    beta: float = 1.0
    """Strength of the guidance; 0 is plain integration."""
    schedule: Schedule = "constant"
    """How the guidance grows along the flow; the published rule is constant."""
    adaptive: bool = True
    """Whether gradients above the monitor's alarm are reduced, row by row, and the guidance as a whole when this
    persists."""
    limit: float = 5.0
    """Bound of the states, which are clamped to [-limit, limit]."""
    clip: float | None = None
    """Largest norm of each row's gradient, which is clipped to it; None: no clipping."""
    normalize_q: bool = False
    """Whether beta is divided by mean |Q|, which makes it comparable across reward scales."""
    monitor: GuidanceMonitor = dataclasses.field(default_factory=GuidanceMonitor, compare=False)
    """Statistics of past calls, shared by copies of this sampler."""

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
            guided = torch.addcmul(x, dt, velocity + weight * gradient)
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
