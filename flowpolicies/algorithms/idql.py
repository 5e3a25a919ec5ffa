"""IDQL: implicit Q-learning and, apart from it, a diffusion that clones the data; acting takes the best of its samples.

Hansen-Estruch et al., "IDQL: Implicit Q-Learning as an Actor-Critic Method with Diffusion Policies",
https://arxiv.org/abs/2304.10573
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, final

from torch import Tensor

from flowpolicies.core import Batch, Draw, Loss, Network, Networks, Noise, UpdateSpec, loss_term
from flowpolicies.losses import QAggregation, denoising, iql_critic_loss, iql_value_loss
from flowpolicies.networks import InputNormValue, ResidualNoisePrediction
from flowpolicies.samplers import Sampler, best_of
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import DiffusionConfig, critic, denoise
from flowpolicies.shell.fields import UnitInterval


@final
@dataclass(frozen=True, kw_only=True)
class IDQLConfig(DiffusionConfig):
    """Hyperparameters of IDQL."""

    first_index: ClassVar[Literal[0, 1]] = 0

    actor_hidden_dims: tuple[int, ...] = (256, 256, 256)
    """Widths of the actor's residual blocks, one per block and all equal."""
    actor_layer_norm: bool = True
    """Whether each residual block of the actor begins with LayerNorm."""
    value_hidden_dims: tuple[int, ...] = (256, 256)
    """Hidden widths of critics and value function."""
    value_layer_norm: bool = False
    """Whether the critics have LayerNorm after each activation; the value function always has it on its input."""
    q_agg: QAggregation = "min"
    """How the target critics become V's target: their minimum, or their mean minus rho standard deviations."""
    expectile: UnitInterval = 0.7
    """Level kappa of the expectile regression of V: 0.5 is the mean, towards 1 the maximum (0.7; 0.9 on antmaze)."""
    dropout: UnitInterval = 0.1
    """Probability in [0, 1) that an input of a residual block is set to 0 in training."""
    ema: UnitInterval = 0.999
    """Decay per update of the slow actor, which acts."""
    decay_updates: int | None = 3_000_000
    """Cosine decay to 0 of the actor's learning rate over so many updates; None: constant."""
    weight_decay: float = 1e-4
    """Decoupled weight decay of the actor, as in AdamW."""
    num_samples: int = 64
    """Number N of candidates per action; the minimum over the slow critics chooses the best."""

    def networks(self, tau: float) -> dict[str, Network]:
        actor = partial(ResidualNoisePrediction, hidden_dims=self.actor_hidden_dims, layer_norm=self.actor_layer_norm)
        return {
            "critic": critic(self, tau, activation="relu"),
            "value": Network(partial(InputNormValue, hidden_dims=self.value_hidden_dims)),
            "actor_diffusion": Network(
                actor, 1 - self.ema, decay_updates=self.decay_updates, weight_decay=self.weight_decay
            ),
        }

    def sampler(self) -> Sampler:
        return best_of(denoise(self, "direct"), self.num_samples, score="min")

    def update_spec(self, step: int) -> UpdateSpec:
        """First the actor, then the value, then the critics, which see the updated value."""
        return UpdateSpec((("actor",), ("value",), ("critic",)), targets_first=False)


def dropout_masks(noise: Noise, shape: tuple[int, ...], rate: float) -> Tensor:
    """0 with probability `rate`, otherwise 1 / (1 - rate)."""
    u = noise.draw(Draw("uniform", shape))
    return (u >= rate).to(u.dtype) / (1 - rate)


@loss_term(trains="actor_diffusion")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: IDQLConfig) -> Loss:
    """mean_b sum_i (eps_hat(s, x_t, t) - eps)_i^2, with dropout."""
    blocks, width = len(cfg.actor_hidden_dims), cfg.actor_hidden_dims[0]
    masks = dropout_masks(noise, (*batch.rewards.shape, blocks, width), cfg.dropout)

    def network(observations: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return nets.online.actor_diffusion(observations, x, t, masks)

    # As in the authors' code, the loss is the sum over the action's coordinates, not their mean.
    return batch.actions.shape[-1] * denoising(network, batch, noise, cfg.diffusion), {}


@loss_term(trains="value")
def value_loss(nets: Networks, batch: Batch, noise: Noise, cfg: IDQLConfig) -> Loss:
    """L_kappa(min_e Qbar_e(s, a) - V(s))."""
    return iql_value_loss(nets, batch, cfg.expectile, cfg.q_agg, cfg.rho)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: IDQLConfig) -> Loss:
    """(Q_e(s, a) - r - gamma V(s'))^2."""
    return iql_critic_loss(nets, batch)


@final
class IDQL(OfflineAlgorithm):
    """Implicit diffusion Q-learning: act with the best of N samples of a behaviour diffusion.

    Examples:
        >>> from flowpolicies import IDQL
        >>> from flowpolicies.samplers import BestOfN, Denoise
        >>> model = IDQL(dataset="pendulum:mixed", expectile=0.9, seed=0).learn_offline(1_000)
        >>> model.policy.sampler = BestOfN(Denoise(), n=4)  # fewer candidates than in training act faster
    """

    family = "diffusion"
    Config = IDQLConfig
    losses = (actor_loss, value_loss, critic_loss)
    parity = ("idql_a",)
    act_with = explore_with = ("critic", "actor_diffusion")
