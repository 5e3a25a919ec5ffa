"""Behaviour cloning with a flow policy (flow_family 3.1): flow matching alone.

Lipman et al., "Flow Matching for Generative Modeling", https://arxiv.org/abs/2210.02747
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.algorithms.base import OfflineAlgorithm
from flowpolicies.algorithms.config import PolicyConfig, velocity
from flowpolicies.core import Network
from flowpolicies.losses import flow_matching_loss
from flowpolicies.samplers import Integrate, Sampler


@final
@dataclass(frozen=True, kw_only=True)
class BCConfig(PolicyConfig):
    """Hyperparameters of BC."""

    flow_steps: int = 10
    """Euler steps of the flow."""


@final
class BC(OfflineAlgorithm):
    """Behaviour cloning: the flow of the data."""

    Config, losses = BCConfig, (flow_matching_loss,)

    @staticmethod
    def networks(cfg: BCConfig, tau: float) -> dict[str, Network]:
        return {"actor_flow": velocity(cfg)}

    @staticmethod
    def sampler(cfg: BCConfig) -> Sampler:
        return Integrate(steps=cfg.flow_steps)
