"""Samplers that choose the noise that a flow starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.views import View
from flowpolicies.flows import SOLVERS, Method, unit_grid


@final
@dataclass(frozen=True)
class Latent:
    """DSRL: z = scale * y with y in (-1, 1) from a squashed Gaussian, then dx/dt = v(s, x, t) from x_0 = z.

    Draws only y: z determines the action, which is clipped to [-1, 1].

    Examples:
        >>> from flowpolicies import DSRL
        >>> from flowpolicies.samplers import Latent
        >>> model = DSRL(env="Pendulum-v1")
        >>> model.policy.sampler = Latent(noise_scale=0.8)
        >>> model.predict(model.observation_space.sample())[0].shape
        (1,)
    """

    actor: str = "latent_actor"
    """Name of the squashed Gaussian, (observations, eps) -> y and its log-probability."""
    field: str = "actor_flow"
    """Name of the network that is the velocity field."""
    steps: int = 10
    """Number of steps of the solver."""
    noise_scale: float = 1.0
    """Largest size of each coordinate of z."""
    method: Method = "euler"
    """Method of the solver: euler, midpoint, heun or rk4."""

    def __call__(self, nets: View, observations: Tensor, noise: Noise) -> Tensor:
        squashed, _ = nets[self.actor](observations, noise.actions(observations.shape[:-1]))
        z = self.noise_scale * squashed
        return SOLVERS[self.method](nets[self.field].given(observations), z, unit_grid(z, self.steps)).clamp(-1, 1)
