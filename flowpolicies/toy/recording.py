"""What figures show of a policy, as arrays in the units of the box: samples, paths, velocities, values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from flowpolicies.core import ReplayedNoise
from flowpolicies.flows import action_gradient, euler, remaining_grid
from flowpolicies.policies import FlowPolicy
from flowpolicies.samplers import Integrate, OneStep
from flowpolicies.toy.datasets import BOX, draw_points
from flowpolicies.toy.measures import HELD_OUT

TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Flow times of the velocity fields and of the landscapes."""
CONSISTENCY_TIMES = tuple(np.linspace(0, 1, 21).tolist())
"""Flow times at which flow consistency is measured."""
PATHS, FRAME_POINTS = 64, 500
"""Numbers of paths, and of samples in each frame of the animation."""
FINE, COARSE = 41, 17
"""Numbers of places along each side of the box, for values and for velocities."""

Recording = dict[str, np.ndarray]
"""Name -> array."""
Function = Callable[[Tensor, float], Tensor]
"""(points `[N, 2]` in the units of the networks, flow time) -> `[N]` or `[N, 2]`."""


def record(policy: FlowPolicy, dataset: str) -> Recording:
    """All that can be recorded of a policy; what a method does not have is left out.

    Returns:
        `samples` `[N, 2]`; `paths` `[T, P, 2]`, from the noise to the action; `velocity` `[5, 17, 17, 2]` at `TIMES`;
        `critic` `[41, 41]`; `value` `[5, 41, 41]` with `value_gradient` `[5, 41, 41, 2]`; `consistency` `[21, 3]`: the
        mean and the quartiles of |V(Psi(x_t), 1) - V(x_t, t)| at `CONSISTENCY_TIMES`.
    """
    found = {"samples": samples(policy, HELD_OUT), "paths": paths(policy)}
    networks = policy.view()
    if "actor_flow" in networks:
        field = _velocity(policy, "actor_flow")
        found["velocity"] = np.stack([_on_grid(policy, field, t, COARSE) * BOX for t in TIMES])
    if "inner_value" in networks and "actor_flow" in networks:
        found |= _landscape(policy) | {"consistency": consistency(policy, dataset)}
    critic = _critic(policy)
    if critic is not None:
        found["critic"] = _on_grid(policy, critic, 1.0, FINE)
    return {name: array.astype(np.float32) for name, array in found.items()}


def noise_of(n: int, seed: int = 7) -> np.ndarray:
    """The noise that paths and frames of all policies start from, `[n, 2]` in the units of the networks."""
    return np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)


def samples(policy: FlowPolicy, n: int) -> np.ndarray:
    """Actions `[n, 2]` of the policy from the same random numbers in each call."""
    policy.seed(1)
    return policy.predict(np.zeros((n, 1), np.float32))[0]


def frame(policy: FlowPolicy) -> np.ndarray:
    """A picture of the policy in training: `FRAME_POINTS` samples."""
    return samples(policy, FRAME_POINTS).astype(np.float16)


def paths(policy: FlowPolicy) -> np.ndarray:
    """From the noise to the action, `[T, P, 2]`: the states of the flow, or only both ends of another sampler.

    Where a sampler draws more than one noise, the path starts at its first one.
    """
    start = torch.as_tensor(noise_of(PATHS), device=policy.device)
    if isinstance(policy.sampler, Integrate) and policy.sampler.method == "euler":
        field, states = _velocity(policy, policy.sampler.field), [start]
        times = np.linspace(0, 1, policy.sampler.steps + 1)
        with torch.no_grad():
            for t, h in zip(times[:-1], np.diff(times), strict=True):
                states.append(states[-1] + h * field(states[-1], float(t)))
        return torch.stack([*states[:-1], states[-1].clamp(-1, 1)]).cpu().numpy() * BOX
    if isinstance(policy.sampler, OneStep):
        noise = ReplayedNoise(2, [start])
        with torch.no_grad():
            end = policy.sampler(policy.view(), _origin(policy, len(start)), noise)
        return torch.stack([start, end]).cpu().numpy() * BOX
    return np.zeros((0, PATHS, 2))


def consistency(policy: FlowPolicy, dataset: str) -> np.ndarray:
    """Mean and quartiles of |V(Psi_{t -> 1}(x_t), 1) - V(x_t, t)| over held-out points, `[21, 3]`."""
    actions = torch.as_tensor(draw_points(dataset, HELD_OUT, seed=1).positions, device=policy.device) / BOX
    noise = torch.as_tensor(noise_of(len(actions)), device=policy.device)
    value, field = _value(policy), policy.view()["actor_flow"].given(_origin(policy, len(actions)))
    steps, rows = getattr(policy.sampler, "steps", 10), []
    with torch.no_grad():
        for time in CONSISTENCY_TIMES:
            t = torch.full_like(actions[:, :1], time)
            x = (1 - t) * noise + t * actions
            landed = euler(field, x, remaining_grid(t, steps)).clamp(-1, 1)
            gap = (value(landed, 1.0) - value(x, time)).abs()
            rows.append(torch.stack([gap.mean(), *torch.quantile(gap, gap.new_tensor([0.25, 0.75]))]))
    return torch.stack(rows).cpu().numpy()


def _landscape(policy: FlowPolicy) -> Recording:
    value = _value(policy)

    def slope(x: Tensor, t: float) -> Tensor:
        network = policy.view()["inner_value"].given(_origin(policy, len(x)))
        return action_gradient(network, x, torch.full_like(x[:, :1], t)) / BOX

    return {
        "value": np.stack([_on_grid(policy, value, t, FINE) for t in TIMES]),
        "value_gradient": np.stack([_on_grid(policy, slope, t, FINE) for t in TIMES]),
    }


def _critic(policy: FlowPolicy) -> Function | None:
    """Mean of the critics as a function of points, or None: there is none, or it takes a time."""
    networks = policy.view()
    if "critic" not in networks or getattr(networks["critic"].module, "time_embedding", "none") != "none":
        return None
    critic = networks["critic"]
    return lambda x, t: critic(_origin(policy, len(x)), x).mean(0)


def _velocity(policy: FlowPolicy, name: str) -> Function:
    network = policy.view()[name]
    return lambda x, t: network(_origin(policy, len(x)), x, torch.full_like(x[:, :1], t))


def _value(policy: FlowPolicy) -> Function:
    """Mean of the values of noisy actions."""
    values = _velocity(policy, "inner_value")
    return lambda x, t: values(x, t).mean(0)


def _origin(policy: FlowPolicy, n: int) -> Tensor:
    return torch.zeros(n, 1, device=policy.device)


def _on_grid(policy: FlowPolicy, function: Function, t: float, places: int) -> np.ndarray:
    """A function over the box, `[places, places, ...]` with rows along y."""
    side = torch.linspace(-1, 1, places, device=policy.device)
    y, x = torch.meshgrid(side, side, indexing="ij")
    points = torch.stack([x.flatten(), y.flatten()], 1)
    with torch.no_grad():
        found = function(points, t)
    return found.reshape(places, places, *found.shape[1:]).cpu().numpy()
