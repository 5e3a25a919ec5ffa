"""Edit policies: small corrections of a flow's actions."""

from __future__ import annotations

from flowpolicies.core.noise import Noise
from flowpolicies.core.types import Batch, Loss
from flowpolicies.core.views import Networks
from flowpolicies.losses.policy import maximize_q, soft_policy_loss
from flowpolicies.samplers import Sampler


def edit_objective(
    nets: Networks, batch: Batch, noise: Noise, flow: Sampler, scale: float, target_entropy: float
) -> Loss:
    """-Q(s, clip(a + scale e)) + sg[alpha] log pi(e | s, a) + alpha (H - H_target), e ~ pi, a from the flow.

    Trains `edit_actor` and `temperature`.

    Args:
        flow: the sampler of the actions that are edited, used without gradient.
        scale: size of the largest edit.
        target_entropy: H_target.
    """
    # As in QAM's code: the log-probability is that of the unscaled e, and rows are not weighted by `valid`
    # (docs/algorithms/fedit.md, "Where code and paper differ").
    actions = flow(nets.frozen, batch.observations, noise)
    eps = noise.actions(batch.actions.shape[:-1])
    edits, log_probs = nets.online.edit_actor(batch.observations, actions, eps)
    q_loss = maximize_q(nets, batch, actions + scale * edits)
    return soft_policy_loss(nets, q_loss, log_probs, target_entropy)
