"""Policy improvement by climbing Q."""

from __future__ import annotations

from torch import Tensor

from flowpolicies.core.types import Batch
from flowpolicies.core.views import Networks


def maximise_q(nets: Networks, batch: Batch, actions: Tensor, normalize: bool = False) -> Tensor:
    """-mean_b mean_e Q_e(s, clip(a)), a scalar; gradient reaches the actions, and none where they saturate.

    Args:
        actions: `[B, A]`, not yet clipped, with gradient to the actor.
        normalize: divide by the (constant) mean of |Q|, which makes the weight of this term independent of the
            reward scale.
    """
    q = nets.frozen.critic(batch.observations, actions.clamp(-1, 1)).mean(0)
    loss = -q.mean()
    return loss / q.abs().mean().detach() if normalize else loss


def temperature_loss(nets: Networks, log_probs: Tensor, target_entropy: float) -> Tensor:
    """alpha (H - H_target), H = -mean log pi held constant; written on alpha itself, not on its logarithm.

    Args:
        log_probs: `[B]`.
        target_entropy: H_target; the authors take minus half the action (chunk) dimension.
    """
    entropy = -log_probs.detach().mean()
    return nets.online.temperature() * (entropy - target_entropy)
