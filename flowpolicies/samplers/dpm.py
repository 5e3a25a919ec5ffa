"""Samplers of diffusions in continuous time, which solve the probability-flow equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.types import Velocity
from flowpolicies.core.views import View
from flowpolicies.flows import EARLIEST, dpm_solver, noise_level, pull_back, uniform_grid


@final
@dataclass(frozen=True)
class DPMSolver:
    """x ~ N(0, I), then DPM-Solver++ of second order on a uniform grid from 1 to 0.001, clipped to [-1, 1] at the
    end.

    Examples:
        >>> from flowpolicies import QGPO
        >>> from flowpolicies.samplers import DPMSolver
        >>> model = QGPO(env="Pendulum-v1")
        >>> model.policy.sampler = DPMSolver()
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    network: str = "actor_diffusion"
    """Name of the network that predicts the noise, (observations, x, t) -> eps."""
    steps: int = 15
    """Number of intervals of the grid, with one network evaluation each. Odd numbers are more accurate: even ones end
    with two steps of first order."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        return _solve(nets[self.network].given(observations), noise.actions(observations.shape[:-1]), self.steps)


@final
@dataclass(frozen=True)
class EnergyGuided:
    """`DPMSolver` along score + s_g grad_x f(s, x, t): behaviour times exp(s_g energy), for the noisy energy f.

    Examples:
        >>> from flowpolicies import QGPO
        >>> from flowpolicies.samplers import EnergyGuided
        >>> model = QGPO(env="Pendulum-v1")
        >>> model.policy.sampler = EnergyGuided(guidance_scale=3.0)
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    network: str = "actor_diffusion"
    """Name of the network that predicts the noise, (observations, x, t) -> eps."""
    energy: str = "inner_value"
    """Name of the network that is the energy f, (observations, x, t) -> `[*]`."""
    guidance_scale: float = 1.0
    """Strength s_g of the guidance: 0 is the behaviour, 1 what f was trained for."""
    steps: int = 15
    """Number of intervals of the grid, with one network evaluation each. Odd numbers are more accurate: even ones end
    with two steps of first order."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        x = noise.actions(observations.shape[:-1])
        predict, energy = nets[self.network].given(observations), nets[self.energy].given(observations)

        def guided(x: Tensor, t: Tensor) -> Tensor:
            climb = pull_back(lambda x: energy(x, t), x)
            return predict(x, t) - self.guidance_scale * noise_level(t).sigma * climb

        return _solve(guided, x, self.steps)


def _solve(predict: Velocity, x: Tensor, steps: int) -> Tensor:
    start = torch.ones_like(x[..., :1])
    return dpm_solver(predict, x, uniform_grid(start, EARLIEST * start, steps)).clamp(-1, 1)
