"""Diagnostics of values: whether they can be right, and whether they agree with each other and with returns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from flowpolicies.diagnostics.evidence import Evidence, NotMeasurable
from flowpolicies.flows import euler_until_arrival, interpolate, remaining_grid
from flowpolicies.losses import aggregate

EARLY, LATE = 0.25, 0.75
"""Flow times that end the beginning of a flow, and that begin its end."""


def beyond_range(evidence: Evidence) -> dict[str, float]:
    """How far values are outside of what returns can be, as a share of that range.

    A return is a discounted sum of rewards of the data; with terminations it may have any number of terms from one on.
    """
    values = evidence.batch_values.mean(0)
    rewards, masks = evidence.store.columns["rewards"], evidence.store.columns["masks"]
    gamma, ends = evidence.model.gamma, bool((masks == 0).any())
    least, most = (
        _extreme(float(reward), gamma, ends, sign) for reward, sign in ((rewards.min(), -1), (rewards.max(), 1))
    )
    lowest, highest = float(values.min()), float(values.max())
    outside = max(least - lowest, highest - most, 0.0) if math.isfinite(lowest + highest) else math.nan
    span = max(most - least, 1e-6)
    return {"value": outside / span, "lowest": lowest, "highest": highest, "least": least, "most": most}


def _extreme(reward: float, gamma: float, ends: bool, sign: int) -> float:
    """The most extreme return with rewards of up to `reward`: for ever, or once where episodes end."""
    forever = reward / max(1 - gamma, 1e-4)
    return sign * max(sign * forever, sign * reward) if ends else forever


def sag(evidence: Evidence) -> dict[str, float]:
    """How far mean Q falls on the ways from the start to success, as a share of its range on them."""
    ways = evidence.ways
    flat = ways.observations.flatten(0, 1)
    values = evidence.values(flat, evidence.act(flat, 3)).mean(0).view(len(ways.observations), -1)
    means = values.mean(0).cpu().numpy().astype(np.float64)
    falls = np.maximum.accumulate(means) - means
    span = max(float(means.max() - means.min()), 1e-6)
    numbers = {"value": float(falls.max()) / span, "first": float(means[0]), "last": float(means[-1])}
    points = {f"mean_{i}": float(mean) for i, mean in enumerate(means)}
    return numbers | points | {"ways": float(len(values)), "steps": ways.steps, "best": ways.best}


def overestimation(evidence: Evidence) -> dict[str, float]:
    """How far Q at the start is above the realised return, as a share of the spread of values."""
    rollouts, spread = evidence.rollouts, evidence.spread
    q = float(evidence.values(rollouts.starts, rollouts.actions).mean())
    realized = float(rollouts.returns.mean())
    return {"value": (q - realized) / spread, "q": q, "realized": realized, "episodes": float(len(rollouts.returns))}


def inconsistency(evidence: Evidence) -> dict[str, float]:
    """Mean |V(s, x_t, t) - Q(s, Psi(x_t))| as a share of the spread of values: Q-Flow's flow consistency."""
    networks, batch = evidence.policy.networks, evidence.batch
    cfg: Any = evidence.model.cfg
    if not {"inner_value", "actor_flow", "critic"} <= set(networks) or not hasattr(cfg, "flow_steps"):
        raise NotMeasurable(f"{type(evidence.model).__name__} has no inner value of a flow's noisy actions")
    with torch.no_grad():
        x_t, t, _ = interpolate(batch.actions, evidence.noise(4))
        flow = evidence.nets.frozen.actor_flow.given(batch.observations)
        landed = euler_until_arrival(flow, x_t, remaining_grid(t, cfg.flow_steps)).clamp(-1, 1)
        target = aggregate(evidence.nets.target.critic(batch.observations, landed), cfg.q_agg, cfg.rho)
        value = evidence.nets.frozen.inner_value(batch.observations, x_t, t).mean(0)
    errors, times = (value - target).abs() / evidence.policy.reward_factor / evidence.spread, t.squeeze(-1)
    early, late = errors[times < EARLY], errors[times > LATE]
    return {"value": float(errors.mean()), "early": float(early.mean()), "late": float(late.mean())}


def disagreement(evidence: Evidence) -> dict[str, float]:
    """Standard deviation of the critics at the policy's actions, in units of that at the data's actions."""
    if len(evidence.batch_values) < 2:
        raise NotMeasurable("there is one critic only")
    policy = float(evidence.batch_values.std(0, correction=0).mean())
    data = float(evidence.values(evidence.batch.observations, evidence.batch.actions).std(0, correction=0).mean())
    return {"value": policy / max(data, 1e-9), "policy": policy, "data": data}
