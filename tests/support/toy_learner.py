"""A learner of two small networks and two loss terms, for tests of the learner."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from trees import weights

from flowpolicies.core import Batch, Learner, Network, UpdateSpec, loss_term
from flowpolicies.core.adam import initial_moments
from flowpolicies.core.learner import LearnerState
from flowpolicies.networks import Critic, VelocityField


@dataclass(frozen=True)
class Cfg:
    weight: float = 1.0


@loss_term(trains="critic")
def critic_loss(nets, batch, noise, cfg):
    x = noise.actions(batch.actions.shape[:-1])
    y = nets.frozen.actor_flow(batch.observations, x, noise.times(x.shape[:-1]))
    target = nets.target.critic(batch.observations, y).mean(0)
    return (nets.online.critic(batch.observations, batch.actions) - target).square().mean(), {"target": target.mean()}


@loss_term(trains="actor_flow")
def actor_loss(nets, batch, noise, cfg):
    x, t = noise.actions(batch.actions.shape[:-1]), noise.times(batch.actions.shape[:-1])
    velocity = nets.online.actor_flow(batch.observations, x, t)
    return cfg.weight * (velocity.square().mean() - nets.frozen.critic(batch.observations, velocity).mean()), {}


@loss_term(trains="critic")
def leaky_loss(nets, batch, noise, cfg):
    return nets.online.actor_flow(batch.observations, batch.actions, noise.times((8,))).mean(), {}


SPECS = {
    "critic": Network(partial(Critic, hidden_dims=(16, 16)), target_rate=0.1),
    "actor_flow": Network(partial(VelocityField, hidden_dims=(16, 16))),
}
EVERY = UpdateSpec((("critic", "actor"),))


def make_batch(seed: int, n: int = 8) -> Batch:
    g = torch.Generator().manual_seed(seed)
    rand = partial(torch.randn, generator=g)
    ones = torch.ones(n)
    return Batch(
        rand(n, 3), rand(n, 2).tanh(), rand(n, 3), rand(n, 2).tanh(), rand(n), 0.9 * ones, ones, torch.ones(n, 2)
    )


def make(terms=(critic_loss, actor_loss), seed: int = 0, **options) -> tuple[Learner, LearnerState]:
    torch.manual_seed(seed)
    modules = {name: spec.factory(3, 2) for name, spec in SPECS.items()}
    params = weights(modules)
    targets = {"critic": {k: p + 0.1 for k, p in params["critic"].items()}}
    learner = Learner(modules, SPECS, terms, Cfg(), action_dim=2, **options)
    return learner, LearnerState(params, targets, initial_moments(params))


def run(learner: Learner, state: LearnerState, steps: int = 3, step: UpdateSpec = EVERY, seed: int = 0) -> LearnerState:
    generator = torch.Generator().manual_seed(seed)
    for i in range(steps):
        batch = make_batch(100 * seed + i)
        learner.update(state, batch, learner.draws(state, batch, step, [generator]), step, torch.tensor(1e-2))
    return state


def leaves(tree: dict[str, dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    return [tensor for part in tree.values() for tensor in part.values()]
