"""Diffusion steering with reinforcement learning, for a flow: choose the noise that the behaviour flow starts from.

Wagenmaker et al., "Steering Your Diffusion Policy with Latent Space Reinforcement Learning",
https://arxiv.org/abs/2506.15799. This is the offline form of QAM's code; docs/algorithms/dsrl.md says how it differs
from the authors' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import final

from flowpolicies.core import Batch, Loss, Network, Networks, Noise, loss_term
from flowpolicies.flows import euler, unit_grid
from flowpolicies.losses import flow_matching_loss, soft_policy_loss, td_loss
from flowpolicies.networks import TanhNormal, Temperature
from flowpolicies.samplers import Latent, Sampler, best_of
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import CriticConfig, critic, velocity


@final
@dataclass(frozen=True, kw_only=True)
class DSRLConfig(CriticConfig):
    """Hyperparameters of DSRL."""

    ensemble: int = 10
    """Number K of critics, and of latent critics."""
    rho: float = 0.5
    """Pessimism rho of the TD target: mean - rho * std over the critics (the authors use 0 on humanoidmaze)."""
    noise_scale: float = 1.0
    """Largest size of each coordinate of the noise that the latent actor chooses (the authors use 0.4 to 1.4)."""
    target_entropy_multiplier: float = 0.5
    """Target entropy of the latent policy: minus this number, times the dimension of the action (chunk)."""
    flow_steps: int = 10
    """Number of Euler steps of the behaviour flow."""
    best_of_n: int = 1
    """Number of candidates per action, when acting and in TD targets; the critics' mean chooses the best."""

    def networks(self, tau: float) -> dict[str, Network]:
        actor = partial(TanhNormal, hidden_dims=self.actor_hidden_dims, layer_norm=self.actor_layer_norm)
        return {
            "critic": critic(self, target_rate=tau),
            "latent_critic": critic(self),
            "actor_flow": velocity(self, target_rate=tau),
            "latent_actor": Network(actor),
            "temperature": Network(Temperature),
        }

    def sampler(self) -> Sampler:
        return best_of(Latent(steps=self.flow_steps, noise_scale=self.noise_scale), self.best_of_n)


@loss_term(trains="critic")
def critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: DSRLConfig) -> Loss:
    """(Q(s, a) - r - gamma Qbar(s', G(s', z')))^2, z' from the latent actor, G the slow flow."""
    acting = nets.frozen | {"actor_flow": nets.target.actor_flow}
    next_actions = cfg.sampler()(acting, batch.next_observations, noise)
    return td_loss(nets, batch, next_actions, cfg.q_agg, cfg.rho)


@loss_term(trains="latent_critic")
def latent_critic_loss(nets: Networks, batch: Batch, noise: Noise, cfg: DSRLConfig) -> Loss:
    """(Z_e(s, z) - Q_e(s, G(s, z)))^2, z ~ N(0, I): noise is worth the action that it becomes."""
    # As in QAM's code, z is Gaussian although the latent actor's lies in [-c, c], and rows are not weighted by `valid`
    # (docs/algorithms/dsrl.md, "Where code and paper differ").
    z = noise.actions(batch.rewards.shape)
    flow = nets.target.actor_flow.given(batch.observations)
    q = nets.frozen.critic(batch.observations, euler(flow, z, unit_grid(z, cfg.flow_steps)).clamp(-1, 1))
    return (nets.online.latent_critic(batch.observations, z) - q).square().mean(), {}


@loss_term(trains=("latent_actor", "temperature"))
def latent_actor_loss(nets: Networks, batch: Batch, noise: Noise, cfg: DSRLConfig) -> Loss:
    """alpha log pi(y | s) - Z(s, c y), y in (-1, 1); and alpha (H - H_target) for the temperature alpha."""
    y, log_probs = nets.online.latent_actor(batch.observations, noise.actions(batch.rewards.shape))
    q = nets.frozen.latent_critic(batch.observations, cfg.noise_scale * y).mean(0)
    target_entropy = -cfg.target_entropy_multiplier * batch.actions.shape[-1]
    return soft_policy_loss(nets, -q.mean(), log_probs, target_entropy)


@final
class DSRL(OfflineAlgorithm):
    """Diffusion steering: a latent actor chooses the noise that the behaviour flow starts from, for high value.

    Examples:
        >>> from flowpolicies import DSRL
        >>> model = DSRL(env="Pendulum-v1", dataset="pendulum:mixed", noise_scale=0.8, seed=0)
        >>> model.learn_offline(1_000).learn(1_000).save("dsrl.zip")  # the flow clones; what is chosen is its noise
    """

    family = "guided"
    Config = DSRLConfig
    losses = (critic_loss, latent_critic_loss, flow_matching_loss, latent_actor_loss)
    # As in QAM's code, the slow flow acts in collection and evaluation too.
    act_with = explore_with = ("actor_flow",)
    parity = ("dsrl_a",)
