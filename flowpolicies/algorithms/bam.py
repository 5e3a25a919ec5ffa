"""Basic adjoint matching: fine-tune a flow by backpropagation through the memoryless SDE.

Li and Levine, "Q-learning with Adjoint Matching", https://arxiv.org/abs/2601.14234 (a baseline of that paper)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.flows import memoryless_sde, unit_grid
from flowpolicies.losses import aggregate, control_cost, fine_tuned, flow_matching, slow_or_frozen, td_loss
from flowpolicies.samplers import Sampler, best_of
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import FineTunedConfig


@final
@dataclass(frozen=True, kw_only=True)
class BAMConfig(FineTunedConfig):
    """Hyperparameters of BAM."""

    def networks(self, tau: float) -> dict[str, Network]:
        return self.fine_tuned_networks(tau)

    def sampler(self) -> Sampler:
        return best_of(self.fine_tuned_flow(), self.best_of_n)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: BAMConfig) -> Loss:
    """(Q(s, a) - r - gamma Qbar(s', a'))^2, a' from the fine-tuned flow."""
    next_actions = cfg.sampler()(nets.frozen, batch.next_observations, noise)
    return td_loss(nets, batch, next_actions, cfg.q_agg, cfg.rho)


@loss_term(trains="actor_slow")
def flow_matching_loss(nets: Networks, batch: Batch, noise: Noise, cfg: BAMConfig) -> Loss:
    """|v_slow(s, x_t, t) - (x_1 - x_0)|^2: the behaviour flow."""
    return flow_matching(nets.online.actor_slow, batch, noise), {}


@loss_term(trains="actor_fast")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: BAMConfig) -> Loss:
    """sum_i 2 / sigma_i^2 |(v_fast - v_slow)(s, x_i, t_i)|^2 - tau Q(s, x_T) along the SDE of v_fast.

    Gradient flows through every state.
    """
    base = slow_or_frozen(nets, cfg.target_actor).actor_slow.given(batch.observations)
    policy = fine_tuned(nets.online.actor_fast, batch.observations, base, cfg.residual)
    x_0 = noise.actions(batch.actions.shape[:-1])
    grid = unit_grid(x_0, cfg.flow_steps)
    states, velocities = memoryless_sde(policy, base, x_0, grid, noise)
    cost = control_cost(base, states, velocities, grid)
    # As in QAM's code: x_T is not clipped, and neither term is weighted by `valid`
    # (docs/algorithms/bam.md, "Where code and paper differ").
    q = aggregate(nets.frozen.critic(batch.observations, states[-1]), cfg.q_agg, cfg.rho).mean()
    return cost - cfg.inv_temp * q, {"cost": cost, "q": q}


@final
class BAM(OfflineAlgorithm):
    """Basic adjoint matching: fine-tune the behaviour flow as QAM does, but by backpropagation through the SDE.

    Examples:
        >>> from flowpolicies import BAM
        >>> model = BAM(dataset="pendulum:mixed", inv_temp=3.0, residual=True, seed=0)
        >>> model.learn_offline(1_000).policy.save("bam.safetensors")
    """

    family = "flow"
    Config = BAMConfig
    losses = (critic_loss, flow_matching_loss, actor_loss)
    parity = ("bam_a",)
