"""What Diffusion-QL and CAC share: twin critics, and an actor that climbs Q through all steps of its sampler."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flowpolicies.core import Network, Step
from flowpolicies.losses import QAggregation
from flowpolicies.shell.config import CriticConfig, critic, noise_prediction
from flowpolicies.shell.fields import Natural, Share


@dataclass(frozen=True, kw_only=True)
class BackpropagatedConfig(CriticConfig):
    """Abstract: what Diffusion-QL and CAC share. Their actor climbs Q through all steps of its sampler."""

    actor_hidden_dims: tuple[int, ...] = (256, 256, 256)
    """Hidden widths of the actor."""
    value_hidden_dims: tuple[int, ...] = (256, 256, 256)
    """Hidden widths of the critics."""
    value_layer_norm: bool = False
    """LayerNorm after each activation of the critics."""
    q_agg: QAggregation = "min"
    """How the target critics become one value."""
    clip_grad_norm: float | None = 1.0
    """Clip the gradient of each network to this norm, the papers' gn (1 to 10 on D4RL); None: no clipping."""
    critic_learning_rate: float | None = 3e-4
    """Learning rate of the critics; None: the algorithm's."""
    eta: float = 1.0
    """Weight of Q against the data; the one number to tune (0.005 to 4.5)."""
    max_q_backup: bool = False
    """Whether each target critic takes the best of 10 next actions; otherwise there is one."""
    ema: Share = 0.995
    """Decay of the slow actor, whose actions are in the targets."""
    ema_every: int = 5
    """Updates between two moves of the slow actor."""
    ema_start: Natural = 1000
    """Updates before its first move; until then it is the untrained actor."""
    num_samples: int = 50
    """Candidates per action, of which one is drawn with probability softmax(min_e Qbar_e)."""


def backpropagated_networks(cfg: BackpropagatedConfig, tau: float, actor: str) -> dict[str, Network]:
    """Critics and an actor with slow copies, each with a clip of its own, in torch's initialisation."""
    common: dict[str, Any] = {"activation": "mish", "initialization": "torch"}
    own_rate = replace(critic(cfg, tau, **common), learning_rate=cfg.critic_learning_rate)
    networks = {"critic": own_rate, actor: noise_prediction(cfg, 1 - cfg.ema, **common)}
    return {n: replace(network, clip_grad_norm=cfg.clip_grad_norm) for n, network in networks.items()}


def critic_then_actor(step: int, cfg: BackpropagatedConfig) -> Step:
    """The actor's loss sees the updated critics; the slow actor moves rarely, and late."""
    moves_actor = step >= cfg.ema_start and step % cfg.ema_every == 0
    return Step((("critic",), ("actor",)), moves=None if moves_actor else ("critic",), lagged=False)
