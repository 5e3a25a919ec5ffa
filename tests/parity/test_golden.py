"""Replays recordings of the authors' code through the public loss terms, samplers and the learner's update.

Tolerances are those of the recordings' README (tests/parity/tolerances.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from names import STAGED, TO_COME, VARIANTS, port_of, recorded_name
from ports import PORTS
from recording import Recording
from tolerances import ACTION, LOSS, assert_gradients, assert_weights
from torch import Tensor

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.core import Metrics, UpdateSpec
from flowpolicies.core.learner import LearnerState


@cache
def load(path: Path) -> Recording:
    return Recording(path)


@pytest.fixture
def recording(ported: Path) -> Recording:
    return load(ported)


def test_recording_has_an_algorithm(golden: Path) -> None:
    assert golden.is_file(), f"no recordings (*.npz) in {golden}"
    name = recorded_name(golden.stem)
    if name in TO_COME:
        pytest.xfail(f"{golden.name} was recorded from {TO_COME[name]!r}, for which there is no algorithm here yet")
    if name not in STAGED:
        assert load(golden).algorithm.name == load(golden).translation.algorithm
        assert "stages" not in load(golden).config, f"{name} has several stages: it belongs to names.STAGED"


@pytest.mark.parametrize("name", TO_COME)
def test_methods_to_come(name: str) -> None:
    method = TO_COME[name]
    assert method not in ALGORITHMS, f"{method} is here: give {name} a port, and remove it from names.TO_COME"
    pytest.xfail(f"the recording of {name} is not replayed: there is no algorithm {method!r} here yet")


def test_every_name_is_in_one_table() -> None:
    names = [*PORTS, *VARIANTS, *STAGED, *TO_COME]
    assert len(set(names)) == len(names)
    assert set(VARIANTS.values()) <= set(PORTS)
    assert set(STAGED.values()) <= set(ALGORITHMS)


def test_names_of_recordings_are_matched_exactly() -> None:
    assert recorded_name("dac_d4rl_a") == "dac_d4rl"
    assert port_of("dac_d4rl_b") is None
    assert port_of("dac_b") is PORTS["dac"]
    assert port_of("iql_multi_a") is PORTS["iql_ddpgbc"]
    for unknown in ("dac_d4_a", "dac_a_2", "dac", "fql_mutli_a"):
        with pytest.raises(LookupError, match=f"^{unknown}.npz is not a recording that tests/parity/names.py knows"):
            recorded_name(unknown)
    with pytest.raises(LookupError, match=r"Did you mean 'fql_multi'\?$"):
        recorded_name("fql_mutli_a")


def every_term(recording: Recording) -> UpdateSpec:
    """The first update that evaluates every term, of which recordings hold one."""
    names = tuple(term.name for term in recording.algorithm.losses)
    specs = (recording.cfg.update_spec(number) for number in range(10))
    explicit = (spec._replace(stages=spec.stages or (names,)) for spec in specs)
    return next(spec for spec in explicit if sum(map(len, spec.stages)) == len(names))


def assert_losses(recording: Recording, metrics: Metrics, recorded: Mapping[str, float], terms: Iterable[str]) -> None:
    """Compares the total of the terms that were trained, and every recorded part that has a metric of ours."""
    if "total" in recorded:
        assert sum(float(metrics[f"{term}/loss"]) for term in terms) == pytest.approx(recorded["total"], rel=LOSS)
    compared = {theirs: ours for theirs, ours in recording.port.metrics.items() if theirs in recorded}
    assert compared or "total" in recorded
    for theirs, ours in compared.items():
        assert float(metrics[ours]) == pytest.approx(recorded[theirs], rel=LOSS, abs=1e-6), theirs


def assert_state(recording: Recording, state: LearnerState, prefix: str) -> None:
    """Compares the trained weights and the target copies."""
    for ours, target in ((state.params, False), (state.targets, True)):
        assert_weights(ours, recording.weights(prefix, target=target))


def test_losses_and_gradients(recording: Recording) -> None:
    learner, state, step = recording.learner(clipped=False), recording.state(), every_term(recording)
    assert len(step.stages) == 1, "recordings hold one gradient per update"
    draws = recording.draws("draw")
    grads, metrics = learner.gradients(state, recording.batch, draws, step.stages[0])
    assert_losses(recording, metrics, recording.losses(), step.stages[0])
    assert_gradients(grads, recording.gradients())


def test_sampled_actions(recording: Recording) -> None:
    assert "sample" in recording.samplers()
    for prefix in recording.samplers():
        ours, theirs = recording.sampled(prefix)
        assert float((ours - theirs).abs().max()) <= ACTION, prefix


def learning_rate(recording: Recording) -> Tensor:
    return torch.tensor(recording.config.get("lr", 3e-4))


def test_weights_after_one_update(recording: Recording) -> None:
    learner, state, step = recording.learner(), recording.state(), every_term(recording)
    learner.update(state, recording.batch, [recording.draws("step_draw")], step, learning_rate(recording))
    assert_state(recording, state, "step_param")


def test_losses_and_weights_of_consecutive_updates(consecutive: Path) -> None:
    recording = load(consecutive)
    learner, state, updates = recording.learner(), recording.state(), recording.updates()
    assert len(updates) == 5
    for update in updates:
        stages = update.spec.stages or (tuple(learner.terms),)
        metrics = learner.update(state, update.batch, [update.draws], update.spec, learning_rate(recording))
        assert_losses(recording, metrics, update.losses, stages[0])
    assert_state(recording, state, "multi/final_param")
