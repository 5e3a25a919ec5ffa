"""Fields that algorithms share. Every algorithm's own config extends one of these two."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from flowpolicies.core import Network
from flowpolicies.losses import QAggregation
from flowpolicies.networks import Critic, ImpalaVariant, Value, VelocityField


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
    encoder: ImpalaVariant = "impala_small"
    """Encoder of images; an observation without images needs none."""
    clip_grad_norm: float | None = None
    """Clip the joint gradient of all networks to this norm; None: no clipping, as the authors."""

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"horizon is the length of an action chunk and must be at least 1, got {self.horizon}")
        if self.execute is not None and not 1 <= self.execute <= self.horizon:
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


def velocity(cfg: PolicyConfig, target_rate: float | None = None, **options: Any) -> Network:
    """A velocity field of the configured size."""
    factory = partial(VelocityField, hidden_dims=cfg.actor_hidden_dims, layer_norm=cfg.actor_layer_norm, **options)
    return Network(factory, target_rate)


def critic(cfg: CriticConfig, target_rate: float | None = None, **options: Any) -> Network:
    """An ensemble of critics of the configured size."""
    options = {"ensemble": cfg.ensemble, **options}
    factory = partial(Critic, hidden_dims=cfg.value_hidden_dims, layer_norm=cfg.value_layer_norm, **options)
    return Network(factory, target_rate)


def value(cfg: CriticConfig, target_rate: float | None = None, **options: Any) -> Network:
    """A state value of the configured size."""
    factory = partial(Value, hidden_dims=cfg.value_hidden_dims, layer_norm=cfg.value_layer_norm, **options)
    return Network(factory, target_rate)
