"""Replays recordings of the authors' code through the public loss terms, samplers and the learner's update.

Tolerances are those of the recordings' README: losses 1e-5 relative, gradients 1e-4 of the largest entry of the tensor,
actions 1e-5, weights after a full update 2e-5, of which 0.5 % of the entries of a network may differ by up to 6.1e-4
(Adam's first step is a sign where a gradient is near zero).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from ports import PORTS, port_of, recorded_name
from recording import Recording

from flowpolicies.core import UpdateSpec


@cache
def load(path: Path) -> Recording:
    return Recording(path)


@pytest.fixture
def recording(ported: Path) -> Recording:
    return load(ported)


def test_recording_has_an_algorithm(golden: Path) -> None:
    assert golden.is_file(), f"no recordings (*.npz) in {golden}"
    name = recorded_name(golden.stem)
    if name not in PORTS:
        pytest.xfail(f"{golden.name} was recorded from {name!r}, for which there is no algorithm here yet")
    assert load(golden).algorithm.name == load(golden).translation.algorithm


def test_a_variant_is_chosen_by_the_recorded_config() -> None:
    assert port_of("iql", {"actor_loss": "awr"}).port.algorithm == "iql"
    assert port_of("iql", {"actor_loss": "ddpgbc"}).port.algorithm == "iql_ddpgbc"
    assert port_of("fql", {"actor_loss": "ddpgbc"}).port.algorithm == "fql"


def every_term(recording: Recording) -> UpdateSpec:
    """The first update that evaluates every term, of which recordings hold one."""
    names = tuple(term.name for term in recording.algorithm.losses)
    specs = (recording.cfg.update_spec(number) for number in range(10))
    explicit = (spec._replace(stages=spec.stages or (names,)) for spec in specs)
    return next(spec for spec in explicit if sum(map(len, spec.stages)) == len(names))


def test_losses_and_gradients(recording: Recording) -> None:
    learner, state, step = recording.learner(clipped=False), recording.state(), every_term(recording)
    assert len(step.stages) == 1, "recordings hold one gradient per update"
    draws = recording.draws("draw")
    grads, metrics = learner.gradients(state, recording.batch, draws, step.stages[0])
    recorded = recording.losses()

    total = sum(float(metrics[f"{term}/loss"]) for term in step.stages[0])
    assert total == pytest.approx(recorded["total"], rel=1e-5)
    for theirs, ours in recording.port.metrics.items():
        if theirs in recorded:
            assert float(metrics[ours]) == pytest.approx(recorded[theirs], rel=1e-5, abs=1e-6), theirs

    expected = recording.gradients()
    assert set(expected) <= set(grads)
    compared = 0
    for name, tree in grads.items():
        for key, gradient in tree.items():
            theirs = expected.get(name, {}).get(key, torch.zeros(())).reshape(-1).expand(gradient.numel())
            scale = max(float(theirs.abs().max()), 1e-8)
            error = float((gradient.reshape(-1) - theirs).abs().max())
            assert error <= 1e-4 * scale, f"gradient of {name}.{key}: error {error:.2e}, largest entry {scale:.2e}"
            compared += 1
    assert compared == sum(len(tree) for tree in grads.values()) > 0


def test_sampled_actions(recording: Recording) -> None:
    ours, theirs = recording.sampled()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_weights_after_one_update(recording: Recording) -> None:
    learner, state, step = recording.learner(), recording.state(), every_term(recording)
    learner.update(
        state, recording.batch, [recording.draws("step_draw")], step, torch.tensor(recording.config.get("lr", 3e-4))
    )
    for kind, ours in (("trained", state.params), ("target", state.targets)):
        theirs = recording.weights("step_param", target=kind == "target")
        assert ours.keys() == theirs.keys()
        for name, tree in ours.items():
            error = torch.cat([(p - theirs[name][key]).abs().flatten() for key, p in tree.items()])
            assert float(error.max()) <= 6.1e-4, f"{kind} {name}: largest error {float(error.max()):.2e}"
            share = float((error > 2e-5).float().mean())
            assert share <= 0.005, f"{kind} {name}: {100 * share:.2f} % of the weights differ by more than 2e-5"
