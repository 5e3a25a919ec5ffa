"""Diagnostics of actions: where the policy acts, beside where the data do."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flowpolicies.diagnostics.evidence import Evidence, NotMeasurable
from flowpolicies.spaces.layout import observation_layout

BOUND = 0.999
"""Size of a coordinate of an action in [-1, 1] from which it counts as at a bound."""
REFERENCE_ROWS = 8192
"""Number of transitions with which distances are measured."""
USUAL = 0.95
"""Quantile of the data's own distances up to which a distance is usual."""


def saturation(evidence: Evidence) -> dict[str, float]:
    """Share of coordinates at a bound, beyond the share of the data."""
    policy, data = (float((each.abs() >= BOUND).float().mean()) for each in (evidence.actions, evidence.batch.actions))
    return {"value": max(policy - data, 0.0), "policy": policy, "data": data}


def distance(evidence: Evidence) -> dict[str, float]:
    """Share of pairs of state and action of the policy that are unusually far from all pairs of the data."""
    batch, others = evidence.batch, evidence.sample(REFERENCE_ROWS, evidence.seed + 1)
    has_images = any(entry.image for entry in observation_layout(evidence.policy.observation_space))
    states = [rows[:, :0] if has_images else rows for rows in (batch.observations, others.observations)]
    reference = torch.cat([states[1], others.actions], -1)
    own, policy = (_distances(torch.cat([states[0], a], -1), reference) for a in (batch.actions, evidence.actions))
    is_itself = own == 0  # A row is not its own neighbor, nor that of the policy's action in its state.
    own, policy = (each.masked_fill(is_itself, torch.inf).amin(-1) for each in (own, policy))
    known = own.isfinite()
    if not known.any():
        raise NotMeasurable("all transitions of the data are alike")
    own, policy = own[known], policy[known]
    share = float((policy > own.quantile(USUAL)).float().mean())
    return {"value": share, "policy": float(policy.mean()), "data": float(own.mean())}


def _distances(pairs: Tensor, reference: Tensor) -> Tensor:
    """Distances `[B, N]`, in standard deviations per dimension; exactly 0 between equal pairs."""
    scale = reference.std(0).clamp(min=1e-3)
    exact = "donot_use_mm_for_euclid_dist"
    distances: Tensor = torch.cdist(pairs / scale, reference / scale, compute_mode=exact)
    return distances / math.sqrt(reference.shape[-1])
