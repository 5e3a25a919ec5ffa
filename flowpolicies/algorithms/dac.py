"""DAC, diffusion actor-critic, in the form of QAM's code: noise regression with a target shifted by the gradient of Q.

Fang et al., "Diffusion Actor-Critic: Formulating Constrained Policy Iteration as Diffusion Noise Regression for Offline
Reinforcement Learning", https://arxiv.org/abs/2405.20555
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Networks, Noise, loss_term
from flowpolicies.losses import noise_error, scored, soft_guidance, td_loss
from flowpolicies.samplers import Sampler
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import ScoreConfig, denoise


@final
@dataclass(frozen=True, kw_only=True)
class DACConfig(ScoreConfig):
    """Hyperparameters of DAC in the form of QAM's code."""

    alpha: float = 1.0
    """Weight of behaviour cloning against Q, in the units of Q (the authors use 0.3 to 3 on OGBench)."""

    def sampler(self) -> Sampler:
        return denoise(self)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: DACConfig) -> Loss:
    """(Q(s, a) - r - gamma Qbar(s', a'))^2, a' from the reverse chain."""
    return td_loss(nets, batch, cfg.sampler()(nets.frozen, batch.next_observations, noise), cfg.q_agg, cfg.rho)


@loss_term(trains="actor_diffusion")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: DACConfig) -> Loss:
    """alpha |eps_hat - eps|^2 + sqrt(1 - abar_t) G eps_hat, G = grad_x mean Qbar(s, x_t)."""
    # As in QAM's code, G is taken at unclipped x_t and not divided by the size of Q. Deviation: they raise a row's
    # losses to the power of `valid`, we multiply (docs/algorithms/dac.md, "Where code and paper differ").
    at = scored(nets, nets.target.critic, batch, noise, cfg.diffusion)
    bc_loss, guidance = noise_error(at, batch), soft_guidance(at, batch)
    return cfg.alpha * bc_loss + guidance, {"bc_loss": bc_loss, "guidance": guidance}


@final
class DAC(OfflineAlgorithm):
    """Diffusion actor-critic in action chunks: noise regression guided by the gradient of Q.

    Examples:
        >>> from flowpolicies import DAC
        >>> model = DAC(dataset="pendulum:mixed", horizon=5, execute=2, alpha=0.3, seed=0).learn_offline(1_000)
        >>> action, state = model.predict(model.observation_space.sample())  # `state` holds the rest of the chunk
    """

    family = "diffusion"
    Config = DACConfig
    losses = (critic_loss, actor_loss)
    parity = ("dac_a",)
