"""Loss terms evaluated on one batch, with small networks whose slow copies differ from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from tiny import known
from torch import Tensor, nn

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.core import Batch, Learner, Network
from flowpolicies.core.adam import initial_moments
from flowpolicies.core.learner import LearnerState
from flowpolicies.core.types import Tree

SMALL = {
    "actor_hidden_dims": (4,),
    "value_hidden_dims": (4,),
    "energy_hidden_dims": (4,),
    "ensemble": 2,
    "flow_steps": 3,
    "diffusion_steps": 3,
    "solver_steps": 3,
    "support_steps": 3,
    "num_samples": 3,
    "next_samples": 5,
    "time_dim": 8,
}
"""Small sizes, of those that an algorithm has."""

Values = dict[str, tuple[dict[str, Tensor], Tree]]
"""Name of a loss term -> its metrics, of which `loss` is one, and the gradient of the networks that it trains."""


def small(algorithm: type[OfflineAlgorithm], **options: Any) -> Any:
    """A config of small sizes."""
    return algorithm.Config(**{**known(algorithm, SMALL), **options})


def state_of(specs: Mapping[str, Network]) -> tuple[dict[str, nn.Module], LearnerState]:
    """Seeded networks for observations of 3 numbers and actions of 2, after 3 updates of each."""
    torch.manual_seed(0)
    near = lambda p, scale: scale * p.detach() + 0.02 * torch.randn_like(p)
    modules = {name: spec.factory(3, 2) for name, spec in specs.items()}
    params = {name: {k: near(p, 1.0) for k, p in module.named_parameters()} for name, module in modules.items()}
    slow = [name for name, spec in specs.items() if spec.target_rate is not None]
    targets = {name: {k: near(p, 1.1) for k, p in params[name].items()} for name in slow}
    moments = initial_moments(params)
    for count in (count for tree in moments.step.values() for count in tree.values()):
        count += 3
    return modules, LearnerState(params, targets, moments)


def evaluate(
    algorithm: type[OfflineAlgorithm],
    cfg: Any,
    batch: Batch,
    changed: Callable[[Tensor], Tensor] | None = None,
    disturbed: tuple[str, str] | None = None,
) -> Values:
    """Every loss term of an algorithm on a batch. A term makes the same draws in every call.

    Args:
        changed: what is done to every column of the batch and to every draw.
        disturbed: "params" or "targets", and the network whose weights or slow copies are made different.
    """
    specs = cfg.networks(0.01)
    modules, state = state_of(specs)
    if disturbed is not None:
        tree = getattr(state, disturbed[0])[disturbed[1]]
        tree.update({key: 0.5 * p - 0.1 for key, p in tree.items()})
    learner = Learner(modules, specs, algorithm.losses, cfg, action_dim=2)
    values: Values = {}
    for term in algorithm.losses:
        generator = torch.Generator().manual_seed(0)
        wanted = learner._record(state, batch, (term.name,))
        draws, rows = [draw.sample(generator) for draw in wanted], batch
        if changed is not None:
            draws, rows = list(map(changed, draws)), Batch(*map(changed, batch))
        grads, metrics = learner.gradients(state, rows, draws, (term.name,))
        own = {name.partition("/")[2]: value for name, value in metrics.items() if name.startswith(f"{term.name}/")}
        values[term.name] = own, grads
    return values
