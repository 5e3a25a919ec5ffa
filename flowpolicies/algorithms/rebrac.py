"""ReBRAC: TD3 with behaviour cloning in actor and critic, as in FQL's code, and as in QAM's.

Tarasov et al., "Revisiting the Minimalist Approach to Offline Reinforcement Learning",
https://arxiv.org/abs/2305.09836
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, UpdateSpec, loss_term
from flowpolicies.losses import QAggregation, aggregate, maximize_q, regress_critic
from flowpolicies.samplers import Gaussian, Perturbed, Sampler
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, gaussian


@dataclass(frozen=True, kw_only=True)
class PenalizedConfig(CriticConfig):
    """Abstract: hyperparameters that both forms of ReBRAC share."""

    alpha_actor: float = 0.0
    """Weight of |mu(s) - a|^2 in the actor's loss, against a Q divided by mean |Q| (the authors use 0.01 to 1)."""
    alpha_critic: float = 0.0
    """Weight of |a' - a'_data|^2, which is subtracted from the next value in TD targets."""
    actor_noise: float = 0.2
    """Standard deviation of the noise that is added to actions, in TD targets and when collecting."""
    actor_noise_clip: float = 0.5
    """Largest noise that is added to a coordinate of an action."""
    actor_freq: int = 2
    """Number of updates between two moves of the target copies; in rebrac also between two updates of the actor."""

    def perturbed(self) -> Sampler:
        return Perturbed(std=self.actor_noise, clip=self.actor_noise_clip)

    def networks(self, tau: float) -> dict[str, Network]:
        return {"critic": critic(self, target_rate=tau), "actor": gaussian(self, target_rate=tau, tanh_mean=True)}


@final
@dataclass(frozen=True, kw_only=True)
class ReBRACConfig(PenalizedConfig):
    """Hyperparameters of ReBRAC."""

    q_agg: QAggregation = "min"
    """How the critics become one value, in TD target and actor loss: minimum, or mean - rho * std."""

    def sampler(self) -> Sampler:
        return Gaussian(temperature=0.0)

    def explorer(self) -> Sampler:
        return self.perturbed()

    def update_spec(self, step: int) -> UpdateSpec:
        """The critic in every update, the actor and the target copies every `actor_freq` updates."""
        if (step + 1) % self.actor_freq == 0:
            return UpdateSpec((("critic", "actor"),))
        return UpdateSpec((("critic",),), target_updates=())


@final
@dataclass(frozen=True, kw_only=True)
class ReBRACQAMConfig(PenalizedConfig):
    """Hyperparameters of ReBRAC in the form of QAM's code."""

    ensemble: int = 10
    """Number K of critics."""
    rho: float = 0.5
    """Pessimism rho in TD target and actor loss: mean - rho * std over critics (the authors use 0 on humanoidmaze)."""

    def sampler(self) -> Sampler:
        # As in QAM's code, evaluation has the noise of exploration.
        return self.perturbed()

    def update_spec(self, step: int) -> UpdateSpec:
        """Critic and actor in every update, the target copies every `actor_freq` updates."""
        # As in QAM's code, which means to delay the actor but delays only the target copies
        # (docs/algorithms/rebrac_qam.md, "Where code and paper differ").
        return UpdateSpec((("critic", "actor"),), target_updates=None if (step + 1) % self.actor_freq == 0 else ())


# As in FQL's code, the joint Adam steps the actor in every update: in updates without the actor's own loss its gradient
# is zero and its momentum moves it (docs/algorithms/rebrac.md, "Where code and paper differ"). Hence "actor" here.
@loss_term(trains=("critic", "actor"))
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: PenalizedConfig) -> Loss:
    """(Q(s, a) - r - gamma (agg Qbar(s', a') - alpha_critic |a' - a'_data|^2))^2, a' the slow actor's, perturbed."""
    next_actions = cfg.perturbed()(nets.target, batch.next_observations, noise)
    # As in FQL's code, `next_actions` at the end of an episode is the first action of the next episode.
    penalty = (next_actions - batch.next_actions).square().sum(-1)
    next_q = aggregate(nets.target.critic(batch.next_observations, next_actions), cfg.q_agg, cfg.rho)
    target = batch.rewards + batch.discounts * (next_q - cfg.alpha_critic * penalty)
    loss, metrics = regress_critic(nets, batch, target)
    return loss, metrics | {"penalty": penalty.mean()}


@loss_term(trains="actor")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: PenalizedConfig) -> Loss:
    """-agg Q(s, mu(s)) / mean |Q| + alpha_actor |mu(s) - a|^2."""
    mean, _ = nets.online.actor(batch.observations)
    q_loss = maximize_q(nets, batch, mean, normalize=True, q_agg=cfg.q_agg, rho=cfg.rho)
    bc_loss = (batch.valid * (mean - batch.actions).square().sum(-1)).mean()
    return q_loss + cfg.alpha_actor * bc_loss, {"q_loss": q_loss, "bc_loss": bc_loss}


@final
class ReBRAC(OfflineAlgorithm):
    """TD3 with behaviour cloning in actor and critic; the actor is trained every second update.

    Examples:
        >>> from flowpolicies import ReBRAC
        >>> model = ReBRAC(dataset="pendulum:mixed", alpha_actor=0.1, alpha_critic=0.01, seed=0)
        >>> model.learn_offline(1_000).policy.save("rebrac.safetensors")
    """

    family = "gaussian"
    Config = ReBRACConfig
    losses = (critic_loss, actor_loss)
    parity = ("rebrac_a", "rebrac_multi_a")
    uses_next_actions = True


@final
class ReBRACQAM(OfflineAlgorithm):
    """ReBRAC as in QAM's code: ten critics, actor trained in every update, targets moved every second update.

    Examples:
        >>> from flowpolicies import ReBRACQAM
        >>> model = ReBRACQAM(dataset="pendulum:mixed", alpha_actor=0.01, alpha_critic=0.01, horizon=5, seed=0)
        >>> model.learn_offline(1_000).policy.save("rebrac.safetensors")
    """

    name = "rebrac_qam"
    family = "gaussian"
    Config = ReBRACQAMConfig
    losses = (critic_loss, actor_loss)
    parity = ("qam_rebrac_a",)
    uses_next_actions = True
