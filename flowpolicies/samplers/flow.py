"""Samplers that integrate a velocity field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.views import View
from flowpolicies.flows import SOLVERS, Method, action_gradient, euler, unit_grid

Schedule = Literal["constant", "linear", "cosine", "late"]
"""Weight of the guidance along the flow. constant: 1; linear: t; cosine: (1 - cos(pi t)) / 2; late: 0 before t = 1/2,
then 1."""


def guidance_schedule(t: Tensor, schedule: Schedule) -> Tensor:
    """Weight of the guidance at flow times t `[*, 1]`."""
    if schedule == "linear":
        return t
    if schedule == "cosine":
        return 0.5 * (1 - torch.cos(math.pi * t))
    if schedule == "late":
        return (t >= 0.5).to(t.dtype)
    return torch.ones_like(t)


@final
@dataclass(frozen=True)
class Integrate:
    """x_0 ~ N(0, I), dx/dt = v(s, x, t) from 0 to 1, clipped to [-1, 1] at the end.

    Examples:
        >>> from flowpolicies import FlowPolicy
        >>> from flowpolicies.samplers import Integrate
        >>> policy = FlowPolicy.from_pretrained("flowpolicies/pointmaze-medium-qflow")
        >>> policy.sampler = Integrate(steps=20, method="heun")
        >>> policy.predict(policy.observation_space.sample())[0].shape
        (2,)
    """

    field: str = "actor_flow"
    """Name of the network that is the velocity field."""
    steps: int = 10
    """Number of steps of the solver."""
    method: Method = "euler"
    """Method of the solver: euler, midpoint, heun or rk4."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        x = noise.actions(observations.shape[:-1])
        return SOLVERS[self.method](nets[self.field].given(observations), x, unit_grid(x, self.steps)).clamp(-1, 1)


@final
@dataclass(frozen=True)
class IntegrateResidual:
    """`Integrate` along the sum of two fields: a flow, and a residual that fine-tuning adds to it.

    Examples:
        >>> from flowpolicies import QAM
        >>> from flowpolicies.samplers import IntegrateResidual
        >>> model = QAM(env="Pendulum-v1")
        >>> model.policy.sampler = IntegrateResidual(base="actor_slow", residual="actor_fast")
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    base: str = "actor_slow"
    """Name of the network that is the velocity field of the flow."""
    residual: str = "actor_fast"
    """Name of the network whose output is added to the flow's velocity."""
    steps: int = 10
    """Number of steps of the solver."""
    method: Method = "euler"
    """Method of the solver: euler, midpoint, heun or rk4."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        x = noise.actions(observations.shape[:-1])
        base, residual = nets[self.base].given(observations), nets[self.residual].given(observations)

        def field(x: Tensor, t: Tensor) -> Tensor:
            return base(x, t) + residual(x, t)

        return SOLVERS[self.method](field, x, unit_grid(x, self.steps)).clamp(-1, 1)


@final
@dataclass(frozen=True)
class Guided:
    """QFQL: a^{k+1} = a^k + dt (v(s, a^k, t_k) + beta grad_a Q(s, a^k)), clipped to [-1, 1] at the end.

    The critic is trained on clean actions, so its gradient at small t is out of distribution; `schedule` can delay it.
    The published rule is `constant`.

    Examples:
        >>> from flowpolicies import QFlow
        >>> from flowpolicies.samplers import Guided
        >>> model = QFlow(env="Pendulum-v1")
        >>> model.policy.sampler = Guided(beta=0.3, schedule="late")
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    field: str = "actor_flow"
    """Name of the network that is the velocity field."""
    critic: str = "critic"
    """Name of the critic whose gradient, averaged over the ensemble, guides."""
    steps: int = 10
    """Number of steps of the solver."""
    beta: float = 1.0
    """Strength of the guidance; 0 is plain integration."""
    schedule: Schedule = "constant"
    """How the guidance grows along the flow; the published rule is constant."""
    method: Method = "euler"
    """Method of the solver: euler, midpoint, heun or rk4."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        x = noise.actions(observations.shape[:-1])
        field, critic = nets[self.field].given(observations), nets[self.critic].given(observations)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            weight = self.beta * guidance_schedule(t, self.schedule)
            return field(x, t) + weight * action_gradient(critic, x)

        return SOLVERS[self.method](velocity, x, unit_grid(x, self.steps)).clamp(-1, 1)


@final
@dataclass(frozen=True)
class ClassifierGuided:
    """CGQL: dx/dt = v(s, x, t) + c/t (kappa (1 - t) grad_x Q(s, x, tau) + x), clipped to [-1, 1] at the end.

    The added velocity is c times that of a flow whose score is kappa grad Q. It is left out at t = 0, where 1/t is
    undefined. The critic takes a flow time tau.

    Examples:
        >>> from flowpolicies import CGQL
        >>> from flowpolicies.samplers import ClassifierGuided
        >>> model = CGQL(env="Pendulum-v1")
        >>> model.policy.sampler = ClassifierGuided(inv_temp=10.0, guidance_coef=0.01)
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    field: str = "actor_flow"
    """Name of the network that is the velocity field."""
    critic: str = "critic"
    """Name of the critic whose gradient, averaged over the ensemble, guides: (observations, x, t) -> `[E, *]`."""
    steps: int = 10
    """Number of Euler steps of the guided flow."""
    inv_temp: float = 1.0
    """Inverse temperature kappa of the policy, which aims at behaviour times exp(kappa Q)."""
    guidance_coef: float = 0.1
    """Strength c of the guidance; 0 is plain integration."""
    critic_time: Literal["final", "current"] = "final"
    """Flow time tau of the critic. final: always 1, for a critic trained on clean actions only; current: t, for one
    trained on noisy actions."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        x = noise.actions(observations.shape[:-1])
        field, critic = nets[self.field].given(observations), nets[self.critic].given(observations)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            tau = t if self.critic_time == "current" else torch.ones_like(t)
            climb = self.inv_temp * (1 - t) * action_gradient(critic, x, tau)
            return field(x, t) + self.guidance_coef / t * (climb + x)

        # As in QAM's code, the first step is not guided and states are not clipped on the way
        # (docs/algorithms/cgql.md, "Where code and paper differ").
        grid = unit_grid(x, self.steps)
        return euler(velocity, euler(field, x, grid[:2]), grid[1:]).clamp(-1, 1)
