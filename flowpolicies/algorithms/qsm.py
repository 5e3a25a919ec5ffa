"""QSM, Q-score matching, in the form of QAM's code: the predicted noise is regressed onto the data's noise and -grad Q.

Psenka et al., "Learning a Diffusion Model Policy from Rewards via Q-Score Matching", https://arxiv.org/abs/2312.11752
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Networks, Noise, loss_term
from flowpolicies.losses import noise_error, q_score_error, scored, td_loss
from flowpolicies.samplers import Sampler
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import ScoreConfig, denoise


@final
@dataclass(frozen=True, kw_only=True)
class QSMConfig(ScoreConfig):
    """Hyperparameters of QSM in the form of QAM's code."""

    inv_temp: float = 10.0
    """Factor kappa of grad Q in the noise to predict (the authors use 1 to 10 on OGBench)."""
    alpha: float = 10.0
    """Weight of behaviour cloning against Q-score matching (the authors use 1 to 30 on OGBench)."""

    def sampler(self) -> Sampler:
        # As in QAM's code, the chain goes to the estimate of the clean action, not to the posterior's mean
        # (docs/algorithms/qsm.md, "Where code and paper differ").
        return denoise(self, "jump")


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QSMConfig) -> Loss:
    """(Q(s, a) - r - gamma Qbar(s', a'))^2, a' from the reverse chain."""
    return td_loss(nets, batch, cfg.sampler()(nets.frozen, batch.next_observations, noise), cfg.q_agg, cfg.rho)


@loss_term(trains="actor_diffusion")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: QSMConfig) -> Loss:
    """alpha |eps_hat - eps|^2 + |eps_hat + kappa G|^2, G = grad_x mean Qbar(s, x_t)."""
    # As in QAM's code, G is taken at unclipped x_t and has no factor sqrt(1 - abar_t). Deviation: they raise a row's
    # losses to the power of `valid`, we multiply.
    at = scored(nets, nets.target.critic, batch, noise, cfg.diffusion)
    bc_loss, score_error = noise_error(at, batch), q_score_error(at, batch, cfg.inv_temp)
    return cfg.alpha * bc_loss + score_error, {"bc_loss": bc_loss, "score_error": score_error}


@final
class QSM(OfflineAlgorithm):
    """Q-score matching in action chunks: the predicted noise is regressed onto both the data's noise and -grad Q.

    Examples:
        >>> from flowpolicies import QSM
        >>> model = QSM(dataset="pendulum:mixed", inv_temp=3.0, alpha=10.0, horizon=5, seed=0)
        >>> model.learn_offline(1_000).policy.save("qsm.safetensors")
    """

    family = "diffusion"
    Config = QSMConfig
    losses = (critic_loss, actor_loss)
    parity = ("qsm_a",)
