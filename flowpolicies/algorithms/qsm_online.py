"""QSM as published, online: the predicted noise is regressed onto -grad Q, without behaviour cloning.

Psenka et al., "Learning a Diffusion Model Policy from Rewards via Q-Score Matching", https://arxiv.org/abs/2312.11752
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, UpdateSpec, loss_term
from flowpolicies.losses import QAggregation, q_score_error, scored, td_loss
from flowpolicies.samplers import Sampler, WithNoise
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import DiffusionConfig, critic, denoise, noise_prediction


@final
@dataclass(frozen=True, kw_only=True)
class QSMOnlineConfig(DiffusionConfig):
    """Hyperparameters of the published QSM."""

    first_index: ClassVar[Literal[0, 1]] = 0

    actor_hidden_dims: tuple[int, ...] = (512, 512)
    """Hidden widths of the noise prediction."""
    value_hidden_dims: tuple[int, ...] = (512, 512)
    """Hidden widths of the critics."""
    value_layer_norm: bool = False
    """Whether the critics have LayerNorm after each activation."""
    q_agg: QAggregation = "min"
    """How the target critics become one value: their minimum, or their mean minus rho standard deviations."""
    inv_temp: float = 50.0
    """Factor kappa of grad Q in the noise to predict, the authors' M_q (they use 120 on hard tasks)."""
    action_noise_std: float = 0.1
    """Standard deviation of the noise that is added to actions, in TD targets and when collecting."""
    time_dim: int = 64
    """Number of Fourier features of the noise level; their frequencies are trained."""
    actor_decay_updates: int | None = 2_000_000
    """Cosine decay to 0 of the actor's learning rate over so many updates; None: constant."""

    def perturbed(self) -> Sampler:
        return WithNoise(denoise(self, "direct"), self.action_noise_std)

    def networks(self, tau: float) -> dict[str, Network]:
        level: dict[str, Any] = {"time_embedding": "learned_fourier", "time_dim": self.time_dim}
        actor = noise_prediction(self, **level, time_hidden_dims=(128, 128))
        return {
            "critic": critic(self, tau, activation="relu"),
            "actor_diffusion": replace(actor, decay_updates=self.actor_decay_updates),
        }

    def sampler(self) -> Sampler:
        return denoise(self, "direct")

    def explorer(self) -> Sampler:
        return self.perturbed()

    def update_spec(self, step: int) -> UpdateSpec:
        """First the critics, then the actor, whose loss sees the updated critics."""
        return UpdateSpec((("critic",), ("actor",)), targets_first=False)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QSMOnlineConfig) -> Loss:
    """(Q(s, a) - r - gamma min_e Qbar_e(s', a'))^2, a' from the reverse chain, perturbed."""
    next_actions = cfg.perturbed()(nets.frozen, batch.next_observations, noise)
    return td_loss(nets, batch, next_actions, cfg.q_agg, cfg.rho)


@loss_term(trains="actor_diffusion")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QSMOnlineConfig) -> Loss:
    """|eps_hat + kappa G|^2, G = grad_x mean Q(s, x_t) of the critics as just updated."""
    # As in the authors' code, the trained critics and not their slow copies
    # (docs/algorithms/qsm_online.md, "Where code and paper differ").
    at = scored(nets, nets.frozen.critic, batch, noise, cfg.diffusion)
    return q_score_error(at, batch, cfg.inv_temp), {"q_gradient": at.q_gradient.abs().mean()}


@final
class QSMOnline(OfflineAlgorithm):
    """Q-score matching as published: the predicted noise is regressed onto -grad Q, without behaviour cloning.

    Examples:
        >>> from flowpolicies import QSMOnline
        >>> model = QSMOnline("MlpPolicy", "Pendulum-v1", inv_temp=10.0, action_noise_std=0.2, seed=0)
        >>> model.learn(5_000).save("qsm.zip")
    """

    name = "qsm_online"
    family = "online"
    Config = QSMOnlineConfig
    losses = (critic_loss, actor_loss)
    parity = ("qsm_online_a",)
