"""One-step students of a flow."""

from __future__ import annotations

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.types import Batch
from flowpolicies.core.views import Networks
from flowpolicies.flows import euler, unit_grid


def distillation(nets: Networks, batch: Batch, noise: Noise, steps: int, teacher: str) -> tuple[Tensor, Tensor]:
    """mean_{b,i} (mu(s, z) - clip(Euler(v; s, z)))_i^2: `actor_onestep` learns to map z to the end of the flow.

    Args:
        steps: Euler steps of the teacher.
        teacher: name of the velocity field, used without gradient.

    Returns:
        The loss, and the student's unclipped actions `[B, A]` with gradient, from the same z.
    """
    z = noise.actions(batch.actions.shape[:-1])
    landed = euler(nets.frozen[teacher].given(batch.observations), z, unit_grid(z, steps)).clamp(-1, 1)
    student = nets.online.actor_onestep(batch.observations, z)
    return (student - landed).square().mean(), student
