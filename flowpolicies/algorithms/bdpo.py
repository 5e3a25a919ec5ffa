"""BDPO: a diffusion policy with a penalty, at each denoising step, on leaving the behaviour's diffusion.

Gao et al., "Behavior-Regularized Diffusion Policy Optimization for Offline Reinforcement Learning",
https://arxiv.org/abs/2502.04778
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

from torch import Tensor

from flowpolicies.core import Batch, BoundNetwork, Loss, Network, Networks, Noise, UpdateSpec, loss_term
from flowpolicies.flows import Noised, path_kl, reverse_step, step_kl
from flowpolicies.losses import aggregate, denoising, regress_critic
from flowpolicies.samplers import Sampler, SoftmaxOfN, best_of, repeat
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import DiffusionConfig, critic, denoise, noise_prediction, noisy_value
from flowpolicies.shell.fields import NonNegativeInt


@final
@dataclass(frozen=True, kw_only=True)
class BDPOConfig(DiffusionConfig):
    """Hyperparameters of BDPO."""

    renamed: ClassVar = {"behaviour_learning_rate": "behavior_learning_rate"}
    added: ClassVar = {"own_levels": False}
    actor_hidden_dims: tuple[int, ...] = (256, 256, 256, 256)
    """Hidden widths of the noise predictions of actor and behaviour (the authors use 512 on antmaze)."""
    value_hidden_dims: tuple[int, ...] = (256, 256, 256)
    """Hidden widths of the critics and of the values of noisy actions."""
    value_layer_norm: bool = False
    """Whether the critics have LayerNorm before each activation (antmaze); values of noisy actions always have it."""
    ensemble: int = 10
    """Number of critics, and of values of noisy actions."""
    rho: float = 1.0
    """Pessimism rho: the critics' value is mean - rho * std over them (the authors use 0.5 to 2)."""
    eta: float = 0.15
    """Weight of the divergence from the behaviour; tune this one first (the authors use 0.05 to 1)."""
    next_samples: int = 10
    """Number N of next actions per next state, and of samples of each denoising step."""
    max_q_backup: bool = False
    """Whether each critic takes the best of the next actions instead of their mean, as the authors do on antmaze."""
    num_samples: int = 10
    """Number of candidates per action, when acting."""
    temperature: float | None = 0.0
    """Softmax temperature over the candidates' mean Q. 0: the best candidate; None: one sample, no critic."""
    pretrain_steps: NonNegativeInt = 2_000_000
    """Number of updates of the behaviour diffusion alone, at the beginning of training."""
    actor_warmup: NonNegativeInt = 50_000
    """Number of updates of the critics alone, after the pretraining."""
    actor_every: int = 5
    """Number of updates between two updates of actor and behaviour, after the warm-up."""
    behavior_learning_rate: float | None = None
    """Learning rate of the behaviour (1e-4 on antmaze); None: the common learning_rate."""
    actor_learning_rate: float | None = 1e-5
    """Learning rate of the actor; None: the common learning_rate."""
    decay_updates: int | None = 2_000_000
    """Cosine decay to 0 of the critics' and actor's learning rates over so many updates of each; None: constant."""
    clip_grad_norm: float | None = 1.0
    """Largest norm of the gradient of each network, which is clipped to it; None: no clipping."""
    own_levels: bool = True
    """Whether each value of noisy actions has its own features of the noise level; models of 0.1.0 share them."""

    def networks(self, tau: float) -> dict[str, Network]:
        init: dict[str, Any] = {"activation": "mish", "initialization": "orthogonal"}
        train: dict[str, Any] = {"clip_grad_norm": self.clip_grad_norm, "decay_updates": self.decay_updates}
        eps = noise_prediction(self, tau, **init, time_dim=64, time_hidden_dims=(64, 64), time_activate_last=True)
        inner: dict[str, Any] = {**init, "norm_first": True, "layer_norm": True, "own_levels": self.own_levels}
        return {
            "actor_slow": replace(eps, learning_rate=self.behavior_learning_rate, clip_grad_norm=self.clip_grad_norm),
            "actor_diffusion": replace(eps, learning_rate=self.actor_learning_rate, **train),
            "critic": replace(critic(self, tau, **init, norm_first=True), **train),
            "inner_value": replace(noisy_value(self, tau, **inner, time_activate_last=True), **train),
        }

    def sampler(self) -> Sampler:
        if self.temperature:
            return SoftmaxOfN(denoise(self), self.num_samples, score="mean", temperature=self.temperature)
        return best_of(denoise(self), 1 if self.temperature is None else self.num_samples)

    def update_spec(self, step: int) -> UpdateSpec:
        """The behaviour alone; then the critics; then the actor too, which begins as the slow behaviour."""
        main, critics = step - self.pretrain_steps, ("critic", "inner_value")
        if main < 0:
            return UpdateSpec((("behavior",),), ("actor_slow",), targets_first=False)
        copies = (("actor_diffusion", "actor_slow"),) if main == 0 else ()
        if main >= self.actor_warmup and main % self.actor_every == 0:
            return UpdateSpec((critics, ("actor", "behavior")), None, targets_first=False, copy_weights=copies)
        return UpdateSpec((critics,), critics, targets_first=False, copy_weights=copies)


def regularized_step(
    nets: Networks, actor: BoundNetwork, batch: Batch, noise: Noise, cfg: BDPOConfig
) -> tuple[Noised, Tensor, Tensor]:
    """x_t; agg_e mean_n Vbar_e(s, x_{t-1}^n, t-1) - eta KL_t, `[B]`, with Qbar_e(s, x_0^n) at t = 1; KL_t, `[B]`."""
    at = cfg.diffusion.noised(batch.actions, noise)
    eps = actor(batch.observations, at.x, at.t)
    observations, x_t, t, e = (repeat(rows, cfg.next_samples) for rows in (batch.observations, at.x, at.t, eps))
    x = reverse_step(cfg.diffusion, x_t, t, e, noise.actions(t.shape[:-1]))
    v, q = nets.target.inner_value(observations, x, t - 1), nets.target.critic(observations, x)
    value = q.mean(-1).where(at.t.squeeze(-1) == cfg.first_index, v.mean(-1))
    kl = step_kl(cfg.diffusion, at.x, at.t, eps, nets.target.actor_slow.given(batch.observations))
    return at, aggregate(value, cfg.q_agg, cfg.rho) - cfg.eta * kl, kl


@loss_term(trains="actor_slow")
def behavior_loss(nets: Networks, batch: Batch, noise: Noise, cfg: BDPOConfig) -> Loss:
    """|eps_b(s, x_t, t) - eps|^2."""
    return denoising(nets.online.actor_slow, batch, noise, cfg.diffusion), {}


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: BDPOConfig) -> Loss:
    """(Q(s, a) - r - gamma (agg mean_n Qbar(s', a'_n) - eta mean_n sum_t KL_t))^2 over N chains of the slow actor."""
    observations = repeat(batch.next_observations, cfg.next_samples)
    actor, behavior = (nets.target[name].given(observations) for name in ("actor_diffusion", "actor_slow"))
    states, predictions = cfg.diffusion.reverse(actor, noise.actions(observations.shape[:-1]), noise)
    kl, q = path_kl(cfg.diffusion, states, predictions, behavior), nets.target.critic(observations, states[-1])
    next_q = aggregate(q.amax(-1) if cfg.max_q_backup else q.mean(-1), cfg.q_agg, cfg.rho)
    loss, metrics = regress_critic(nets, batch, batch.rewards + batch.discounts * (next_q - cfg.eta * kl.mean(-1)))
    return loss, metrics | {"kl": kl.mean()}


@loss_term(trains="inner_value")
def inner_value_loss(nets: Networks, batch: Batch, noise: Noise, cfg: BDPOConfig) -> Loss:
    """(V(s, x_t, t) - agg mean_n Vbar(s, x_{t-1}^n, t-1) + eta KL_t)^2, the reverse step from the slow actor."""
    at, target, kl = regularized_step(nets, nets.target.actor_diffusion, batch, noise, cfg)
    v = nets.online.inner_value(batch.observations, at.x, at.t)
    return (batch.valid * (v - target).square()).mean(), {"target_mean": target.mean(), "kl": kl.mean()}


@loss_term(trains="actor_diffusion")
def actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: BDPOConfig) -> Loss:
    """-(agg mean_n Vbar(s, x_{t-1}^n, t-1) - eta KL_t): one reverse step, from a noisy action of the data."""
    _, objective, kl = regularized_step(nets, nets.online.actor_diffusion, batch, noise, cfg)
    return -(batch.valid * objective).mean(), {"kl": kl.mean()}


@final
class BDPO(OfflineAlgorithm):
    """Behaviour-regularised diffusion: values at every noise level, and a penalty on leaving the behaviour.

    Examples:
        >>> from flowpolicies import BDPO
        >>> model = BDPO(dataset="pendulum:mixed", eta=0.5, pretrain_steps=5_000, actor_warmup=1_000, seed=0)
        >>> model.learn_offline(15_000).policy.save("bdpo.safetensors")  # 5,000 steps of the behaviour alone
    """

    family = "diffusion"
    Config = BDPOConfig
    losses = (behavior_loss, critic_loss, inner_value_loss, actor_loss)
    parity = ("bdpo_a",)
    act_with = explore_with = ("actor_diffusion", "critic")
