"""Q-learning with adjoint matching: QAM, QAM-F (a one-step student) and QAM-E (an edit policy).

Li and Levine, "Q-learning with Adjoint Matching", https://arxiv.org/abs/2601.14234
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, ReplayedNoise, loss_term
from flowpolicies.losses import adjoint_loss, edit_objective, flow_matching, maximize_q, td_loss
from flowpolicies.networks import Temperature
from flowpolicies.samplers import Edit, OneStep, Sampler, best_of
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import FineTunedConfig, edit_actor, velocity


@dataclass(frozen=True, kw_only=True)
class AdjointConfig(FineTunedConfig):
    """Abstract: hyperparameters that QAM, QAM-F and QAM-E share."""

    clip_adj: bool = True
    """Whether Q takes the clipped end of the SDE: coordinates outside [-1, 1] then get no gradient of Q."""
    use_target_grad: bool = True
    """Whether the adjoint starts from the gradient of the target critics; otherwise of the current ones."""


@final
@dataclass(frozen=True, kw_only=True)
class QAMConfig(AdjointConfig):
    """Hyperparameters of QAM."""

    def networks(self, tau: float) -> dict[str, Network]:
        return self.fine_tuned_networks(tau)

    def sampler(self) -> Sampler:
        return best_of(self.fine_tuned_flow(), self.best_of_n)


@final
@dataclass(frozen=True, kw_only=True)
class QAMFConfig(AdjointConfig):
    """Hyperparameters of QAM-F."""

    alpha: float = 30.0
    """Weight of the distillation into the one-step policy against Q (the authors use 3 to 300)."""

    def networks(self, tau: float) -> dict[str, Network]:
        return self.fine_tuned_networks(tau) | {"actor_onestep": velocity(self, time_embedding="none")}

    def sampler(self) -> Sampler:
        return best_of(OneStep("actor_onestep"), self.best_of_n)


@final
@dataclass(frozen=True, kw_only=True)
class QAMEConfig(AdjointConfig):
    """Hyperparameters of QAM-E."""

    edit_scale: float = 0.1
    """Size of the largest edit of each coordinate of the action (the authors use 0.1, and 0.9 on puzzle-4x4)."""
    target_entropy_multiplier: float = 0.5
    """Target entropy of the edit policy: minus this number, times the dimension of the action (chunk)."""

    def networks(self, tau: float) -> dict[str, Network]:
        return self.fine_tuned_networks(tau) | {"edit_actor": edit_actor(self), "temperature": Network(Temperature)}

    def sampler(self) -> Sampler:
        return best_of(Edit(self.fine_tuned_flow(), self.edit_scale), self.best_of_n)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: AdjointConfig) -> Loss:
    """(Q(s, a) - r - gamma Qbar(s', a'))^2, a' from the policy that acts."""
    next_actions = cfg.sampler()(nets.frozen, batch.next_observations, noise)
    return td_loss(nets, batch, next_actions, cfg.q_agg, cfg.rho)


@loss_term(trains="actor_slow")
def flow_matching_loss(nets: Networks, batch: Batch, noise: Noise, cfg: AdjointConfig) -> Loss:
    """|v_slow(s, x_t, t) - (x_1 - x_0)|^2: the behaviour flow."""
    return flow_matching(nets.online.actor_slow, batch, noise), {}


@loss_term(trains="actor_onestep")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QAMFConfig) -> Loss:
    """alpha |mu(s, z) - Psi(s, z)|^2 - Q(s, mu(s, z)), Psi the fine-tuned flow from z."""
    z = noise.actions(batch.actions.shape[:-1])
    landed = cfg.fine_tuned_flow()(nets.frozen, batch.observations, ReplayedNoise(z.shape[-1], [z]))
    student = nets.online.actor_onestep(batch.observations, z)
    # As in QAM's code: the student is clipped in the Q term but not in the distillation, and neither is weighted by
    # `valid` (docs/algorithms/qam_f.md, "Where code and paper differ").
    distill, q_loss = (student - landed).square().mean(), maximize_q(nets, batch, student)
    return cfg.alpha * distill + q_loss, {"distill": distill, "q_loss": q_loss}


@loss_term(trains=("edit_actor", "temperature"))
def edit_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QAMEConfig) -> Loss:
    """-Q(s, a + scale e) + alpha log pi(e | s, a) + alpha (H - H_target), a from the fine-tuned flow."""
    target_entropy = -cfg.target_entropy_multiplier * batch.actions.shape[-1]
    return edit_objective(nets, batch, noise, cfg.fine_tuned_flow(), cfg.edit_scale, target_entropy)


@final
class QAM(OfflineAlgorithm):
    """Q-learning with adjoint matching: fine-tune the behaviour flow towards high Q along a memoryless SDE.

    Examples:
        >>> from flowpolicies import QAM
        >>> model = QAM(dataset="pendulum:mixed", inv_temp=3.0, horizon=5, seed=0).learn_offline(1_000)
        >>> sorted(name for name in model.policy.networks if name.startswith("actor"))  # the behaviour, and what acts
        ['actor_fast', 'actor_slow']
    """

    family = "flow"
    Config = QAMConfig
    losses = (critic_loss, flow_matching_loss, adjoint_loss)
    parity = ("qam_a",)


@final
class QAMF(OfflineAlgorithm):
    """QAM-F: distil the flow that QAM fine-tunes into a one-step policy that also climbs Q, as FQL does.

    Examples:
        >>> from flowpolicies import QAMF
        >>> model = QAMF(dataset="pendulum:mixed", inv_temp=3.0, alpha=100.0, seed=0)
        >>> model.learn_offline(1_000).policy.sampler  # one network call per action
        OneStep(actor='actor_onestep')
    """

    name = "qam_f"
    family = "flow"
    Config = QAMFConfig
    losses = (critic_loss, flow_matching_loss, adjoint_loss, actor_loss)
    parity = ("qam_f_a",)


@final
class QAME(OfflineAlgorithm):
    """QAM-E: edit the actions of the flow that QAM fine-tunes with a small tanh-normal policy that climbs Q.

    Examples:
        >>> from flowpolicies import QAME
        >>> model = QAME(env="Pendulum-v1", dataset="pendulum:mixed", inv_temp=3.0, edit_scale=0.2, seed=0)
        >>> model.learn_offline(1_000).learn(1_000).save("qam_e.zip")
    """

    name = "qam_e"
    family = "flow"
    Config = QAMEConfig
    losses = (critic_loss, flow_matching_loss, adjoint_loss, edit_loss)
    parity = ("qam_e_a",)
