"""RLPD as published: SAC with ten critics, of which two random ones make each target, on batches of half prior data.

Ball et al., "Efficient Online Reinforcement Learning with Offline Data", https://arxiv.org/abs/2302.02948
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from flowpolicies.core import Batch, Draw, Loss, Network, Networks, Noise, UpdateSpec, loss_term
from flowpolicies.losses import QAggregation, aggregate, maximize_q, regress_critic, soft_policy_loss, squashed_sample
from flowpolicies.networks import Temperature
from flowpolicies.samplers import Sampler, TanhGaussian
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, gaussian


@final
@dataclass(frozen=True, kw_only=True)
class RLPDPaperConfig(CriticConfig):
    """Hyperparameters of the published RLPD."""

    actor_hidden_dims: tuple[int, ...] = (256, 256)
    """Hidden widths of the actor (the authors use three layers on AntMaze and Adroit)."""
    value_hidden_dims: tuple[int, ...] = (256, 256)
    """Hidden widths of the critics (the authors use three layers on AntMaze and Adroit)."""
    value_layer_norm: bool = True
    """Whether the critics have LayerNorm before each activation."""
    ensemble: int = 10
    """Number K of critics."""
    target_critics: int = 2
    """Number M of critics, drawn at random for each update, of which the target is made (the authors use 1 on AntMaze);
    K or more: all of them."""
    q_agg: QAggregation = "min"
    """How the values of the M target critics become one: minimum, or mean - rho * std."""
    entropy_backup: float = 1.0
    """Weight of the entropy in TD targets: 1 is the soft value, 0 the authors' choice on AntMaze and Adroit."""
    target_entropy_multiplier: float = 0.5
    """Target entropy of the policy: minus this number, times the dimension of the action (chunk)."""
    actor_every: int = 1
    """Number of updates between two updates of actor and temperature. The authors make 20 updates of the critics and
    one of the actor per step: 20, with gradient_steps=20."""

    def networks(self, tau: float) -> dict[str, Network]:
        options: dict[str, Any] = {"head_scale": 1.0, "log_std_bounds": (-20.0, 2.0), "activation": "relu"}
        return {
            "critic": critic(self, target_rate=tau, activation="relu", norm_first=True),
            "actor": gaussian(self, state_dependent_std=True, **options),
            "temperature": Network(Temperature),
        }

    def sampler(self) -> Sampler:
        return TanhGaussian(temperature=0.0)

    def explorer(self) -> Sampler:
        return TanhGaussian()

    def update_spec(self, step: int) -> UpdateSpec:
        """First the critics and their target copies, then actor and temperature, which see the updated critics."""
        due = (step + 1) % self.actor_every == 0
        return UpdateSpec((("critic",), ("actor",)) if due else (("critic",),), targets_first=False)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: RLPDPaperConfig) -> Loss:
    """(Q(s, a) - r - gamma (min_{e in M} Qbar_e(s', a') - entropy_backup alpha log pi(a' | s')))^2, a' ~ pi."""
    mean, log_std = nets.frozen.actor(batch.next_observations)
    next_actions, log_probs = squashed_sample((mean, log_std), noise.actions(batch.rewards.shape))
    chosen = noise.draw(Draw("uniform", (cfg.ensemble,))).argsort()[: cfg.target_critics]
    next_q = nets.target.critic(batch.next_observations, next_actions)[chosen]
    bonus = cfg.entropy_backup * nets.frozen.temperature() * log_probs
    next_value = aggregate(next_q, cfg.q_agg, cfg.rho) - bonus
    return regress_critic(nets, batch, batch.rewards + batch.discounts * next_value)


@loss_term(trains=("actor", "temperature"))
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: RLPDPaperConfig) -> Loss:
    """alpha log pi(a' | s) - mean_e Q_e(s, a'), a' ~ pi, for the critics as just updated; alpha (H - H_target)."""
    mean, log_std = nets.online.actor(batch.observations)
    actions, log_probs = squashed_sample((mean, log_std), noise.actions(batch.rewards.shape))
    target_entropy = -cfg.target_entropy_multiplier * batch.actions.shape[-1]
    return soft_policy_loss(nets, maximize_q(nets, batch, actions), log_probs, target_entropy)


@final
class RLPDPaper(OfflineAlgorithm):
    """RLPD as published: ten critics of which two random ones make each target, many updates per step, half prior data.

    https://arxiv.org/abs/2302.02948

    Examples:
        >>> from flowpolicies import RLPDPaper
        >>> model = RLPDPaper("MlpPolicy", "Pendulum-v1", dataset="pendulum:mixed", gradient_steps=20, seed=0)
        >>> model.learn(5_000).save("rlpd.zip")
    """

    name = "rlpd_paper"
    family = "online"
    Config = RLPDPaperConfig
    losses = (critic_loss, actor_loss)
    offline_share = 0.5
