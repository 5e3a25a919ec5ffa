"""Losses of policies: flow matching and denoising, one-step students of a flow, and maximisation of Q."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor

from flowpolicies.core.noise import Noise
from flowpolicies.core.types import Batch, Loss
from flowpolicies.core.views import Config, Networks, loss_term
from flowpolicies.flows import Diffusion, euler, interpolate, unit_grid
from flowpolicies.losses.td import QAggregation, aggregate, mean_size


def flow_matching(field: Callable[..., Tensor], batch: Batch, noise: Noise, weights: Tensor | float = 1.0) -> Tensor:
    """mean_b valid_b w_b mean_i (v(s, x_t, t) - (x_1 - x_0))_i^2, a scalar; the behaviour-cloning loss of flows.

    Args:
        field: (observations, x_t, t) -> velocity, on the online view of the network that is trained.
        weights: w `[B]`, without gradient.
    """
    x_t, t, velocity = interpolate(batch.actions, noise)
    error = (field(batch.observations, x_t, t) - velocity).square().mean(-1)
    return (batch.valid * weights * error).mean()


def flow_matching_of_steps(field: Callable[..., Tensor], batch: Batch, noise: Noise) -> Tensor:
    """mean_{b,i} m_bi (v(s, x_t, t) - (x_1 - x_0))_bi^2, m = 1 for the steps of a chunk inside its episode, a scalar.

    Without chunks that is every row, whether its n-step return is `valid` or not.

    Args:
        field: (observations, x_t, t) -> velocity, on the online view of the network that is trained.
    """
    x_t, t, velocity = interpolate(batch.actions, noise)
    return (batch.action_mask * (field(batch.observations, x_t, t) - velocity).square()).mean()


ClonedSteps = Literal["inside", "whole_chunks"]
"""Which steps of action chunks a flow clones. inside: all steps inside their episode, as in QC's code; whole_chunks:
those of chunks that lie inside their episode as a whole, as in QAM's code."""

FLOW_MATCHING: Mapping[ClonedSteps, Callable[[Callable[..., Tensor], Batch, Noise], Tensor]] = {
    "inside": flow_matching_of_steps,
    "whole_chunks": flow_matching,
}
"""The loss of a flow that clones these steps."""


def denoising(network: Callable[..., Tensor], batch: Batch, noise: Noise, diffusion: Diffusion) -> Tensor:
    """mean_b valid_b mean_i (eps_hat(s, x, k) - eps)_i^2, a scalar; the behaviour-cloning loss of diffusions.

    Args:
        network: (observations, x, index) -> predicted noise, on the online view of the network that is trained.
    """
    noised = diffusion.noised(batch.actions, noise)
    error = (network(batch.observations, noised.x, noised.t) - noised.eps).square().mean(-1)
    return (batch.valid * error).mean()


@loss_term(trains="actor_flow")
def flow_matching_loss(nets: Networks, batch: Batch, noise: Noise, cfg: Config) -> Loss:
    """|v(s, x_t, t) - (x_1 - x_0)|^2: behaviour cloning of `actor_flow`."""
    return flow_matching(nets.online.actor_flow, batch, noise), {}


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
            reward scale; see `mean_size`.
        q_agg, rho: how the ensemble becomes one value.
    """
    q = aggregate(nets.frozen.critic(batch.observations, actions.clamp(-1, 1)), q_agg, rho)
    loss = -q.mean()
    return loss / mean_size(q) if normalize else loss


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
