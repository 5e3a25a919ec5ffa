"""DAC as published: diffusion actor-critic with an adapted weight of behaviour cloning and several next actions.

Fang et al., "Diffusion Actor-Critic: Formulating Constrained Policy Iteration as Diffusion Noise Regression for Offline
Reinforcement Learning", https://arxiv.org/abs/2405.20555
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

from torch import Tensor

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, UpdateSpec, loss_term
from flowpolicies.losses import aggregate, noise_error, regress_critic, scored, soft_guidance
from flowpolicies.networks import Multiplier
from flowpolicies.samplers import Sampler, best_of, repeat
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import DiffusionConfig, critic, denoise, noise_prediction
from flowpolicies.shell.fields import NonNegativeInt


@final
@dataclass(frozen=True, kw_only=True)
class DACD4RLConfig(DiffusionConfig):
    """Hyperparameters of the published DAC."""

    actor_hidden_dims: tuple[int, ...] = (256, 256, 256)
    """Hidden widths of the noise prediction."""
    value_hidden_dims: tuple[int, ...] = (256, 256, 256)
    """Hidden widths of the critics."""
    value_layer_norm: bool = False
    """Whether the critics have LayerNorm after each activation."""
    ensemble: int = 10
    """Number K of critics."""
    rho: float = 1.0
    """Pessimism rho: the critics' value is mean - rho * std over them (0 on halfcheetah, 1.5 on hopper)."""
    eta: float = 1.0
    """Weight of behaviour cloning against Q, which is divided by mean |Q|; the initial value if eta_lr > 0."""
    eta_lr: float = 1e-3
    """Step size of the dual ascent that adapts eta within [0.001, 100]; 0: eta is fixed (antmaze, with eta = 0.1)."""
    threshold: float = 1.0
    """Noise-prediction error that the dual ascent aims at: eta grows while the error is larger."""
    next_samples: int = 10
    """Number of next actions per TD target, sampled from the slow actor."""
    max_q_backup: bool = False
    """Whether each critic takes the best of the next actions instead of their mean, as the authors do on antmaze."""
    num_samples: int = 10
    """Number of candidates per action; the mean of the slow critics chooses the best."""
    critic_learning_rate: float | None = None
    """Learning rate of the critics (1e-3 on antmaze-large); None: the common learning_rate."""
    decay_updates: int | None = 2_000_000
    """Cosine decay to 0 of the critics' and actor's learning rates over so many updates; None: constant."""
    clip_grad_norm: float | None = 1.0
    """Largest norm of the gradient of each network, which is clipped to it; None: no clipping."""
    ema_every: int = 5
    """Number of updates between two moves of the slow actor."""
    ema_start: NonNegativeInt = 1000
    """Number of updates before the slow actor moves for the first time; until then it is the untrained actor."""

    def networks(self, tau: float) -> dict[str, Network]:
        trained: dict[str, Any] = {"decay_updates": self.decay_updates, "clip_grad_norm": self.clip_grad_norm}
        actor = noise_prediction(self, target_rate=tau, time_hidden_dims=(32, 32))
        return {
            "critic": replace(critic(self, tau, activation="mish"), learning_rate=self.critic_learning_rate, **trained),
            "actor_diffusion": replace(actor, **trained),
            "temperature": Network(partial(Multiplier, initial=self.eta), learning_rate=1.0, optimizer="sgd"),
        }

    def sampler(self) -> Sampler:
        return best_of(denoise(self), self.num_samples)

    def update_spec(self, step: int) -> UpdateSpec:
        """First the critics, then actor and eta, at the updated slow critics."""
        # As in the authors' code, the slow actor is untrained until `ema_start`, and slow copies move after the step
        # (docs/algorithms/dac_d4rl.md, "Where code and paper differ").
        due = step > self.ema_start and step % self.ema_every == 0
        moves = ("critic", "actor_diffusion") if due else ("critic",)
        return UpdateSpec((("critic",), ("actor",)), moves, targets_first=False)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: DACD4RLConfig) -> Loss:
    """(Q(s, a) - r - gamma (mean - rho std)_e mean_n Qbar_e(s', a'_n))^2, a'_n of the slow actor."""
    observations = repeat(batch.next_observations, cfg.next_samples)
    q = nets.target.critic(observations, denoise(cfg)(nets.target, observations, noise))
    next_q = aggregate(q.amax(-1) if cfg.max_q_backup else q.mean(-1), cfg.q_agg, cfg.rho)
    return regress_critic(nets, batch, batch.rewards + batch.discounts * next_q)


def dual_ascent(nets: Networks, bc_loss: Tensor, cfg: DACD4RLConfig) -> Tensor:
    """eta <- clip(eta + lr clip(|eps_hat - eps|^2 - threshold, -1, 1), 0.001, 100), unless lr is 0.

    Args:
        bc_loss: |eps_hat - eps|^2, `[]`, without gradient.

    Returns:
        A loss of value 0, `[]`; one step of gradient descent on it, with a learning rate of 1, is this assignment.
    """
    eta = nets.frozen.temperature()
    ascended = (eta + cfg.eta_lr * (bc_loss - cfg.threshold).clamp(-1, 1)).clamp(0.001, 100.0)
    return (nets.online.temperature() - eta) * (eta - ascended) * (cfg.eta_lr > 0)


@loss_term(trains=("actor_diffusion", "temperature"))
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: DACD4RLConfig) -> Loss:
    """eta |eps_hat - eps|^2 + sqrt(1 - abar_t) G eps_hat, G = grad_x mean Qbar(s, x_t) / mean |Qbar(s, a)|."""
    at = scored(nets, nets.target.critic, batch, noise, cfg.diffusion)
    bc_loss, eta = noise_error(at, batch), nets.frozen.temperature()
    q_size = nets.target.critic(batch.observations, batch.actions).abs().mean()
    guidance = soft_guidance(at, batch) / (q_size + 1e-6)
    # As in the authors' code, eta follows the error from before the actor's step.
    loss = eta * bc_loss + guidance + dual_ascent(nets, bc_loss.detach(), cfg)
    return loss, {"bc_loss": bc_loss, "guidance": guidance, "q_size": q_size, "eta": eta.clone()}


@final
class DACD4RL(OfflineAlgorithm):
    """Diffusion actor-critic as published: dual ascent holds the noise-prediction error at a threshold.

    Examples:
        >>> from flowpolicies import DACD4RL
        >>> model = DACD4RL(dataset="pendulum:mixed", eta=1.0, eta_lr=1e-3, threshold=0.5, seed=0)
        >>> model.learn_offline(1_000).policy.save("dac.safetensors")
    """

    name = "dac_d4rl"
    family = "diffusion"
    Config = DACD4RLConfig
    losses = (critic_loss, actor_loss)
    parity = ("dac_d4rl_a",)
    act_with = explore_with = ("critic",)
