"""Fields that algorithms share. Every algorithm's own config extends one of these."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from flowpolicies.core import Network
from flowpolicies.flows import BetaSchedule, Diffusion, ReverseRule
from flowpolicies.losses import QAggregation
from flowpolicies.networks import ENCODERS, Critic, Gaussian, NoisePrediction, TanhNormal, Value, VelocityField
from flowpolicies.samplers import Denoise, Integrate, IntegrateResidual, Sampler
from flowpolicies.shell.fields import Bounds, check_fields


def _is_encoder(name: Any) -> bool:
    ENCODERS.check_known(name)  # Its error lists the known names.
    return True


EncoderName = Annotated[str, Bounds("be the name of an encoder", _is_encoder)]
"""Name of an image encoder, built in or registered; see `flowpolicies.networks.register_encoder`."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Abstract: what every algorithm has."""

    horizon: int = 1
    """Length H of an action chunk, in environment steps. The policy emits H actions and executes them open loop."""
    execute: int | None = None
    """How many actions of a chunk are executed before planning again; None: all of them."""
    actor_hidden_dims: tuple[int, ...] = (512, 512, 512, 512)
    """Hidden widths of actors and velocity fields."""
    actor_layer_norm: bool = False
    """LayerNorm after each activation of actors and velocity fields."""
    encoder: EncoderName = "impala_small"
    """Encoder of the images in an observation, such as impala_small, impala or impala_large. Observations without
    images do not use it."""
    clip_grad_norm: float | None = None
    """Clip the joint gradient of all networks to this norm; None: no clipping, as the authors."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.execute is not None and self.execute > self.horizon:
            raise ValueError(
                f"execute must lie in 1..horizon={self.horizon} or be None (the whole chunk), got {self.execute}"
            )


@dataclass(frozen=True, kw_only=True)
class CriticConfig(PolicyConfig):
    """Abstract: what every algorithm with a critic has."""

    value_hidden_dims: tuple[int, ...] = (512, 512, 512, 512)
    """Hidden widths of critics and values."""
    value_layer_norm: bool = True
    """LayerNorm after each activation of critics and values."""
    ensemble: int = 2
    """Number of critics K."""
    q_agg: QAggregation = "mean"
    """How the target critics become one value: their mean (less rho standard deviations) or their minimum."""
    rho: float = 0.0
    """Pessimism: mean - rho * std over the ensemble; only with q_agg="mean"."""

    uses_rho_with_min: ClassVar[bool] = False
    """Whether rho has a part although q_agg="min"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.q_agg == "min" and self.rho != type(self).rho and not self.uses_rho_with_min:
            raise ValueError(
                f'rho={self.rho} has no part in the minimum over critics: pass q_agg="mean" with it, or leave it out'
            )


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(CriticConfig):
    """Abstract: what every algorithm has that denoises over finitely many levels."""

    first_index: ClassVar[Literal[0, 1]] = 1
    """Index of the least noisy level, as the network is fed it."""

    diffusion_steps: int = 5
    """Noise levels T."""
    beta_schedule: BetaSchedule = "vp"
    """How noise grows with the level."""

    @property
    def diffusion(self) -> Diffusion:
        """The noising process."""
        return Diffusion(self.diffusion_steps, self.beta_schedule, self.first_index)


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(DiffusionConfig):
    """Abstract: what DAC and QSM share in the form of QAM's code."""

    diffusion_steps: int = 10
    """Noise levels T."""
    ensemble: int = 10
    """Number of critics K."""
    rho: float = 0.5
    """Pessimism: mean - rho * std over the ensemble (the authors use 0 on humanoidmaze)."""
    clip_grad_norm: float | None = 1.0
    """Clip the joint gradient of all networks to this norm; None: no clipping."""
    time_dim: int = 64
    """Fourier features of the noise level, of trained frequencies."""


@dataclass(frozen=True, kw_only=True)
class FineTunedConfig(CriticConfig):
    """Abstract: what every algorithm has that fine-tunes a flow along the memoryless SDE."""

    ensemble: int = 10
    """Number of critics K."""
    rho: float = 0.5
    """Pessimism: mean - rho * std over the ensemble (the authors use 0 on humanoidmaze)."""
    clip_grad_norm: float | None = 1.0
    """Clip the joint gradient of all networks to this norm; None: no clipping."""
    inv_temp: float = 0.3
    """Weight of Q against the behaviour flow, the paper's tau; the one number to tune (0.1 to 30). 0: the policy is the
    behaviour flow."""
    flow_steps: int = 10
    """Euler steps T of the flows and of the SDE."""
    best_of_n: int = 1
    """Candidates per action, ranked by the mean critic."""
    target_actor: bool = True
    """The behaviour flow in the fine-tuning loss is the slow copy of `actor_slow`, otherwise its current weights."""
    residual: bool = False
    """`actor_fast` is what fine-tuning adds to the behaviour flow, otherwise the fine-tuned flow itself."""


def fine_tuned_flow(cfg: FineTunedConfig) -> Sampler:
    """The fine-tuned flow; without a critic to follow (inv_temp = 0) the behaviour flow, as in the authors' code."""
    if cfg.inv_temp == 0:
        return Integrate("actor_slow", steps=cfg.flow_steps)
    if cfg.residual:
        return IntegrateResidual("actor_slow", "actor_fast", steps=cfg.flow_steps)
    return Integrate("actor_fast", steps=cfg.flow_steps)


def denoise(cfg: DiffusionConfig, rule: ReverseRule = "ancestral") -> Denoise:
    """The reverse chain of `actor_diffusion`."""
    return Denoise("actor_diffusion", cfg.diffusion_steps, cfg.beta_schedule, cfg.first_index, rule)


def velocity(cfg: PolicyConfig, target_rate: float | None = None, **options: Any) -> Network:
    """A velocity field of the configured size."""
    factory = partial(VelocityField, hidden_dims=cfg.actor_hidden_dims, layer_norm=cfg.actor_layer_norm, **options)
    return Network(factory, target_rate)


def gaussian(cfg: PolicyConfig, target_rate: float | None = None, **options: Any) -> Network:
    """A Gaussian policy of the configured size."""
    factory = partial(Gaussian, hidden_dims=cfg.actor_hidden_dims, layer_norm=cfg.actor_layer_norm, **options)
    return Network(factory, target_rate)


def noise_prediction(cfg: PolicyConfig, target_rate: float | None = None, **options: Any) -> Network:
    """A diffusion's network of the configured size."""
    factory = partial(NoisePrediction, hidden_dims=cfg.actor_hidden_dims, layer_norm=cfg.actor_layer_norm, **options)
    return Network(factory, target_rate)


def score_nets(cfg: ScoreConfig, tau: float) -> dict[str, Network]:
    """Critics with slow copies, and a diffusion whose level goes through an MLP as wide as the policy's."""
    level: dict[str, Any] = {"time_embedding": "learned_fourier", "time_dim": cfg.time_dim}
    actor = noise_prediction(cfg, **level, time_hidden_dims=cfg.actor_hidden_dims)
    return {"critic": critic(cfg, target_rate=tau), "actor_diffusion": actor}


def fine_tuned_nets(cfg: FineTunedConfig, tau: float) -> dict[str, Network]:
    """Critics and a behaviour flow with slow copies, and what fine-tuning makes of the flow."""
    flows = {"actor_slow": velocity(cfg, target_rate=tau), "actor_fast": velocity(cfg)}
    return {"critic": critic(cfg, target_rate=tau), **flows}


def critic(cfg: CriticConfig, target_rate: float | None = None, **options: Any) -> Network:
    """An ensemble of critics of the configured size."""
    options = {"ensemble": cfg.ensemble, **options}
    factory = partial(Critic, hidden_dims=cfg.value_hidden_dims, layer_norm=cfg.value_layer_norm, **options)
    return Network(factory, target_rate)


def value(cfg: CriticConfig, target_rate: float | None = None, **options: Any) -> Network:
    """A state value of the configured size."""
    factory = partial(Value, hidden_dims=cfg.value_hidden_dims, layer_norm=cfg.value_layer_norm, **options)
    return Network(factory, target_rate)


def edit_actor(cfg: PolicyConfig) -> Network:
    """A tanh-normal policy of the configured size, which sees an action and edits it."""
    sizes: dict[str, Any] = {"hidden_dims": cfg.actor_hidden_dims, "layer_norm": cfg.actor_layer_norm}
    return Network(partial(TanhNormal, **sizes, takes_action=True))
