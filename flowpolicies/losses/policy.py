"""Policy improvement by climbing Q."""

from __future__ import annotations

from torch import Tensor

from flowpolicies.core.types import Batch, Loss
from flowpolicies.core.views import Networks
from flowpolicies.losses.td import QAggregation, aggregate


def maximize_q(
    nets: Networks,
    batch: Batch,
    actions: Tensor,
    normalize: bool = False,
    q_agg: QAggregation = "mean",
    rho: float = 0.0,
) -> Tensor:
    """-mean_b agg_e Q_e(s, clip(a)), a scalar; gradient reaches the actions, except coordinates outside [-1, 1].

    Args:
        actions: `[B, A]`, not yet clipped, with gradient to the actor.
        normalize: divide by the (constant) mean of |Q|, which makes the weight of this term independent of the
            reward scale.
        q_agg, rho: how the ensemble becomes one value.
    """
    q = aggregate(nets.frozen.critic(batch.observations, actions.clamp(-1, 1)), q_agg, rho)
    loss = -q.mean()
    return loss / q.abs().mean().detach() if normalize else loss


def temperature_loss(nets: Networks, log_probs: Tensor, target_entropy: float) -> Tensor:
    """alpha (H - H_target), H = -mean log pi held constant.

    Args:
        log_probs: `[B]`.
        target_entropy: H_target; the authors use minus half the dimension of the action (chunk).
    """
    # As in the code of FQL and QAM; Stable-Baselines3 writes the loss on log(alpha) instead
    # (docs/algorithms/sac.md, "Where code and paper differ").
    entropy = -log_probs.detach().mean()
    return nets.online.temperature() * (entropy - target_entropy)


def soft_policy_loss(nets: Networks, q_loss: Tensor, log_probs: Tensor, target_entropy: float) -> Loss:
    """-Q + sg[alpha] mean log pi + alpha (H - H_target): SAC's policy, and its temperature alpha.

    Args:
        q_loss: -Q of the sampled actions, a scalar.
        log_probs: log pi of the same actions, `[B]`.
        target_entropy: H_target.
    """
    entropy_loss = (nets.frozen.temperature() * log_probs).mean()
    alpha_loss = temperature_loss(nets, log_probs, target_entropy)
    metrics = {
        "q_loss": q_loss,
        "entropy_loss": entropy_loss,
        "temperature_loss": alpha_loss,
        "entropy": -log_probs.mean(),
        "temperature": nets.frozen.temperature(),
    }
    return q_loss + entropy_loss + alpha_loss, metrics
