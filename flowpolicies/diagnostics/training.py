"""Diagnostics of training: gradients of losses, and of values that guide a flow."""

from __future__ import annotations

import torch
from torch import Tensor

from flowpolicies.diagnostics.evidence import Evidence, NotMeasurable
from flowpolicies.flows import action_gradient, interpolate
from flowpolicies.samplers import ClassifierGuided, Guided


def gradient_norms(evidence: Evidence) -> dict[str, float]:
    """Norm of the gradient of each loss, divided by the norm of the weights that it trains; the largest one counts."""
    model = evidence.model
    probed = model.probe(evidence.windows, evidence.generator(5))
    found: dict[str, float] = {}
    for term in model.losses:
        weights = [p.detach().square().sum() for name in term.trains for p in model.policy.networks[name].parameters()]
        size = float(torch.stack(weights).sum().sqrt())
        found[term.name] = probed[f"{term.name}/grad_norm"] / max(size, 1e-6)
    return {"value": max(found.values())} | found


def guidance_norm(evidence: Evidence) -> dict[str, float]:
    """Mean norm of what a value adds to the velocity of a flow, in units of the velocity of the data."""
    batch = evidence.batch
    x_t, t, velocity = interpolate(batch.actions, evidence.noise(6))
    guidance = _guidance(evidence, x_t, t)
    sizes = [float(each.norm(dim=-1).mean()) for each in (guidance, velocity)]
    return {"value": sizes[0] / max(sizes[1], 1e-9), "guidance": sizes[0], "velocity": sizes[1]}


def _guidance(evidence: Evidence, x_t: Tensor, t: Tensor) -> Tensor:
    """What is added to the velocity at noisy actions: in the loss of Q-Flow, or by a guided sampler."""
    cfg, sampler = evidence.model.cfg, evidence.sampler
    inner = getattr(sampler, "inner", sampler)
    if hasattr(cfg, "guidance_lambda") and "inner_value" in evidence.policy.networks:
        value = evidence.nets.frozen.inner_value.given(evidence.batch.observations)
        gradient = action_gradient(value, x_t, t)
        return gradient / float(cfg.guidance_lambda)
    if isinstance(inner, Guided | ClassifierGuided):
        critic = evidence.nets.frozen[inner.critic].given(evidence.batch.observations)
        if isinstance(inner, Guided):
            return inner.beta * action_gradient(critic, x_t)
        tau = t if inner.critic_time == "current" else torch.ones_like(t)
        return inner.guidance_coef * inner.inv_temp * (1 - t) / t.clamp(min=0.1) * action_gradient(critic, x_t, tau)
    raise NotMeasurable(f"no value guides the flow of {type(evidence.model).__name__}")
