"""Q-Flow: policy improvement by the gradient of a value over the intermediate states of the flow.

Doo et al., "Q-Flow: Stable and Expressive Reinforcement Learning with Flow-Based Policy",
https://arxiv.org/abs/2605.13435
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.flows import action_gradient, euler_until_arrival, interpolate, leading_grid, remaining_grid
from flowpolicies.losses import aggregate, flow_matching, td_loss
from flowpolicies.networks import TimeEmbedding
from flowpolicies.samplers import Integrate, Sampler, best_of
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, velocity


@dataclass(frozen=True, kw_only=True)
class InnerValueConfig(CriticConfig):
    """Abstract: hyperparameters that Q-Flow and its ablation share."""

    flow_steps: int = 10
    """Number of Euler steps of the flow."""
    time_embedding: TimeEmbedding = "fourier"
    """Embedding of the flow time in the inner value: the time itself (scalar) or Fourier features of it."""
    time_dim: int = 64
    """Number D of Fourier features of the flow time (the authors use 16 on D4RL and cube-double, 64 elsewhere)."""
    policy_time_embedding: TimeEmbedding = "scalar"
    """Embedding of the flow time in the policy: scalar in the authors' code, fourier in the paper's text."""
    best_of_n: int = 1
    """Number of candidates per action, when acting and in TD targets; the critics' mean chooses the best."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {
            "critic": critic(self, target_rate=tau),
            # As in the authors' code, the inner value has a target copy, which nothing reads.
            "inner_value": critic(self, target_rate=tau, time_embedding=self.time_embedding, time_dim=self.time_dim),
            "actor_flow": velocity(self, time_embedding=self.policy_time_embedding, time_dim=self.time_dim),
        }

    def sampler(self) -> Sampler:
        return best_of(Integrate(steps=self.flow_steps), self.best_of_n)


@final
@dataclass(frozen=True, kw_only=True)
class QFlowConfig(InnerValueConfig):
    """Hyperparameters of Q-Flow."""

    guidance_lambda: float = 1.0
    """Weight lambda of the data: grad V / lambda is added to the target velocity. Small trusts V, large the data."""


@final
@dataclass(frozen=True, kw_only=True)
class QFlowBPTTConfig(InnerValueConfig):
    """Hyperparameters of Q-Flow's ablation."""

    alpha: float = 1.0
    """Weight alpha of the data against the value: small trusts V, large the data."""


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: InnerValueConfig) -> Loss:
    """(Q(s, a) - r - gamma Qbar(s', a'))^2, a' from the policy."""
    next_actions = cfg.sampler()(nets.frozen, batch.next_observations, noise)
    return td_loss(nets, batch, next_actions, cfg.q_agg, cfg.rho)


@loss_term(trains="inner_value")
def inner_value_loss(nets: Networks, batch: Batch, noise: Noise, cfg: InnerValueConfig) -> Loss:
    """(V(s, x_t, t) - Qbar(s, Psi_{t->1}(x_t)))^2: the value of a noisy action is that of the action it flows to."""
    x_t, t, _ = interpolate(batch.actions, noise)
    policy = nets.frozen.actor_flow.given(batch.observations)
    landed = euler_until_arrival(policy, x_t, remaining_grid(t, cfg.flow_steps)).clamp(-1, 1)
    target = aggregate(nets.target.critic(batch.observations, landed), cfg.q_agg, cfg.rho)
    # As in the authors' code, the aggregate is regressed, not each member, and rho lowers the target only
    # (docs/algorithms/qflow.md, "Where code and paper differ").
    value = aggregate(nets.online.inner_value(batch.observations, x_t, t), cfg.q_agg)
    return (batch.valid * (value - target).square()).mean(), {"value": value.mean()}


@loss_term(trains="actor_flow")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QFlowConfig) -> Loss:
    """|v(s, x_t, t) - sg[(x_1 - x_0) + grad_x V(s, x_t, t) / lambda]|^2."""
    x_t, t, velocity = interpolate(batch.actions, noise)
    guidance = action_gradient(nets.frozen.inner_value.given(batch.observations), x_t, t)
    target = velocity + guidance / cfg.guidance_lambda
    error = (nets.online.actor_flow(batch.observations, x_t, t) - target).square().mean(-1)
    return (batch.valid * error).mean(), {"guidance": guidance.abs().mean()}


@loss_term(trains="actor_flow")
def bptt_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QFlowBPTTConfig) -> Loss:
    """alpha |v(s, x_t, t) - (x_1 - x_0)|^2 - V(s, Psi_{0->t}(x_0), t), with gradient through the steps up to t."""
    bc_loss = flow_matching(nets.online.actor_flow, batch, noise)
    x_0, t = noise.actions(batch.rewards.shape), noise.times(batch.rewards.shape)
    policy = nets.online.actor_flow.given(batch.observations)
    arrived = euler_until_arrival(policy, x_0, leading_grid(t, cfg.flow_steps)).clamp(-1, 1)
    # As in FBRAC, not weighted by `valid`; this ablation has no public code
    # (docs/algorithms/qflow_bptt.md, "Where code and paper differ").
    value = nets.frozen.inner_value(batch.observations, arrived, t).mean()
    return cfg.alpha * bc_loss - value, {"bc_loss": bc_loss, "value": value}


@final
class QFlow(OfflineAlgorithm):
    """Q-Flow: a flow policy guided at every flow time by the gradient of a value of noisy actions.

    Examples:
        >>> from flowpolicies import QFlow
        >>> model = QFlow(dataset="pendulum:mixed", guidance_lambda=2.0, seed=0).learn_offline(1_000)
        >>> model.set_env("Pendulum-v1")
        >>> result = model.learn(1_000).evaluate(episodes=2)
    """

    name = "qflow"
    family = "flow"
    Config = QFlowConfig
    losses = (critic_loss, inner_value_loss, actor_loss)
    parity = (
        "qflow_a",
        "qflow_official_adv_a",
        "qflow_official_adv_best_a",
        "qflow_official_adv_nstep_a",
        "qflow_official_fourier_a",
        "qflow_official_mean_a",
        "qflow_official_min_a",
        "qflow_official_min_fourier_a",
    )


@final
class QFlowBPTT(OfflineAlgorithm):
    """Q-Flow's ablation: the policy climbs the value of noisy actions by backpropagation through its flow steps.

    Examples:
        >>> from flowpolicies import QFlowBPTT
        >>> model = QFlowBPTT(dataset="pendulum:mixed", alpha=10.0, flow_steps=5, seed=0)
        >>> model.learn_offline(1_000).policy.save("bptt.safetensors")
    """

    name = "qflow_bptt"
    family = "flow"
    Config = QFlowBPTTConfig
    losses = (critic_loss, inner_value_loss, bptt_loss)
