"""Losses that depend on how long a network was trained (docs/adr/0008)."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from trees import stack, weights

from flowpolicies.core import Batch, Learner, Network, UpdateSpec, loss_term
from flowpolicies.core.adam import initial_moments
from flowpolicies.core.learner import LearnerState
from flowpolicies.networks import Value

SPECS = {name: Network(partial(Value, hidden_dims=(4,), layer_norm=False)) for name in ("value", "inner_value")}
BOTH, ONE = UpdateSpec((("first",), ("second",))), UpdateSpec((("first",),))


@loss_term(trains="value")
def first_loss(nets, batch, noise, cfg):
    weight = 1 / (1 + nets.updates["value"])
    return weight * (nets.online.value(batch.observations) - 1).square().mean(), {"seen": nets.updates["value"] + 0}


@loss_term(trains="inner_value")
def second_loss(nets, batch, noise, cfg):
    seen = {"first": nets.updates["value"] + 0, "seen": nets.updates["inner_value"] + 0}
    return nets.online.inner_value(batch.observations).square().mean(), seen


def batch() -> Batch:
    wide, row = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.ones(8)
    return Batch(wide, wide[..., :2], wide, wide[..., :2], row, row, row, wide[..., :2])


def make(n_seeds: int | None = None, **options) -> tuple[Learner, LearnerState]:
    torch.manual_seed(0)
    modules = {name: spec.factory(3, 2) for name, spec in SPECS.items()}
    params = weights(modules) if n_seeds is None else stack([weights(modules)] * n_seeds)
    learner = Learner(modules, SPECS, (first_loss, second_loss), None, action_dim=2, n_seeds=n_seeds, **options)
    return learner, LearnerState(params, {}, initial_moments(params))


def run(learner: Learner, state: LearnerState, steps: list[UpdateSpec], data: Batch) -> list[dict[str, torch.Tensor]]:
    generators = [torch.Generator() for _ in range(learner.n_seeds or 1)]
    draws = [learner.draws(state, data, step, generators) for step in steps]
    return [learner.update(state, data, d, step, torch.tensor(1e-2)) for step, d in zip(steps, draws, strict=True)]


STEPS = [BOTH, ONE, BOTH, ONE, BOTH]


@pytest.mark.parametrize("backend", [False, "aot_eager"])
def test_a_loss_sees_the_updates_of_each_network_so_far(backend: str | bool) -> None:
    found = run(*make(compile=backend), STEPS, batch())
    assert [float(metrics["first/seen"]) for metrics in found] == [0, 1, 2, 3, 4]
    both = [metrics for metrics in found if "second/seen" in metrics]
    assert [float(metrics["second/first"]) for metrics in both] == [1, 3, 5]  # Its stage comes after that of the first.
    assert [float(metrics["second/seen"]) for metrics in both] == [0, 1, 2]


def test_a_moving_count_compiles_once() -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    learner, state = make(compile=counter)
    eager, expected = make()
    found, wanted = run(learner, state, [ONE] * 6, batch()), run(eager, expected, [ONE] * 6, batch())
    assert counter.frame_count == 1
    for ours, theirs in zip(found, wanted, strict=True):
        assert float(ours["first/loss"]) == pytest.approx(float(theirs["first/loss"]), rel=1e-5)


def test_seeds_share_the_count() -> None:
    single, wanted = make()
    metrics = run(single, wanted, STEPS, batch())[-1]
    learner, state = make(n_seeds=3)
    vectorised = run(learner, state, STEPS, Batch(*(column.expand(3, *column.shape) for column in batch())))[-1]
    torch.testing.assert_close(vectorised["first/loss"], metrics["first/loss"].expand(3))
    for key, p in wanted.params["value"].items():
        torch.testing.assert_close(state.params["value"][key], p.expand(3, *p.shape), atol=2e-6, rtol=0)
