"""Behaviour cloning with a flow, a Gaussian or a diffusion.

Lipman et al., "Flow Matching for Generative Modeling", https://arxiv.org/abs/2210.02747
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.flows import BetaSchedule, Diffusion
from flowpolicies.losses import denoising, flow_matching_loss, gaussian_log_prob
from flowpolicies.samplers import Denoise, Gaussian, Integrate, Sampler
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import PolicyConfig, gaussian, noise_prediction, velocity


@final
@dataclass(frozen=True, kw_only=True)
class BCConfig(PolicyConfig):
    """Hyperparameters of BC."""

    flow_steps: int = 10
    """Number of Euler steps of the flow."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"actor_flow": velocity(self)}

    def sampler(self) -> Sampler:
        return Integrate(steps=self.flow_steps)


@final
class BC(OfflineAlgorithm):
    """Behaviour cloning with a flow: flow matching of the data's actions.

    Examples:
        >>> from flowpolicies import BC
        >>> model = BC(dataset="pendulum:mixed", flow_steps=5, seed=0).learn_offline(1_000)
        >>> action, _ = model.predict(model.observation_space.sample())
    """

    family = "cloning"
    Config = BCConfig
    losses = (flow_matching_loss,)


@final
@dataclass(frozen=True, kw_only=True)
class BCGaussianConfig(PolicyConfig):
    """Hyperparameters of BC with a Gaussian."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"actor": gaussian(self, state_dependent_std=True)}

    def sampler(self) -> Sampler:
        return Gaussian()


@loss_term(trains="actor")
def likelihood_loss(nets: Networks, batch: Batch, noise: Noise, cfg: BCGaussianConfig) -> Loss:
    """-log N(a; mu(s), sigma(s))."""
    mean, log_std = nets.online.actor(batch.observations)
    error = (batch.valid * (mean - batch.actions).square().mean(-1)).mean()
    loss = -(batch.valid * gaussian_log_prob((mean, log_std), batch.actions)).mean()
    return loss, {"mse": error, "std": log_std.exp().mean()}


@final
class BCGaussian(OfflineAlgorithm):
    """Behaviour cloning with a Gaussian: maximum likelihood of the data's actions.

    Osa et al., "An Algorithmic Perspective on Imitation Learning", https://arxiv.org/abs/1811.06711

    Examples:
        >>> from flowpolicies import BCGaussian
        >>> model = BCGaussian(dataset="pendulum:mixed", actor_hidden_dims=(64, 64), seed=0).learn_offline(1_000)
        >>> action, _ = model.predict(model.observation_space.sample(), deterministic=True)  # the mean of the Gaussian
    """

    name = "bc_gaussian"
    family = "cloning"
    Config = BCGaussianConfig
    losses = (likelihood_loss,)


@final
@dataclass(frozen=True, kw_only=True)
class BCDiffusionConfig(PolicyConfig):
    """Hyperparameters of BC with a diffusion."""

    diffusion_steps: int = 5
    """Number T of noise levels of the diffusion, and so of network calls per action."""
    beta_schedule: BetaSchedule = "vp"
    """Noise schedule of the diffusion: how noise grows with the level."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {"actor_diffusion": noise_prediction(self)}

    def sampler(self) -> Sampler:
        return Denoise(steps=self.diffusion_steps, schedule=self.beta_schedule)


@loss_term(trains="actor_diffusion")
def denoising_loss(nets: Networks, batch: Batch, noise: Noise, cfg: BCDiffusionConfig) -> Loss:
    """|eps_hat(s, x_t, t) - eps|^2 at a random level."""
    return denoising(nets.online.actor_diffusion, batch, noise, Diffusion(cfg.diffusion_steps, cfg.beta_schedule)), {}


@final
class BCDiffusion(OfflineAlgorithm):
    """Behaviour cloning with a diffusion: denoising of the data's actions.

    Pearce et al., "Imitating Human Behaviour with Diffusion Models", https://arxiv.org/abs/2301.10677

    Examples:
        >>> from flowpolicies import BCDiffusion
        >>> model = BCDiffusion(dataset="pendulum:mixed", diffusion_steps=20, beta_schedule="cosine", seed=0)
        >>> model.learn_offline(1_000).policy.save("bc.safetensors")
    """

    name = "bc_diffusion"
    family = "cloning"
    Config = BCDiffusionConfig
    losses = (denoising_loss,)
