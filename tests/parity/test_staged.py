"""Replays recordings of the authors' code whose update has several stages, each with an optimiser of its own.

The learner makes the whole update; each stage sees the weights that the stages before it left.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from staged import StagedRecording
from tolerances import ACTION, LOSS, assert_gradients, assert_weights

from flowpolicies.algorithms.qgpo import sample_support
from flowpolicies.core import Networks, ReplayedNoise, View
from flowpolicies.core.learner import LearnerState
from flowpolicies.core.types import Metrics
from flowpolicies.importing.parameters import SLOW

GOLDEN = Path(__file__).parents[1] / "golden"


@cache
def load(path: Path) -> StagedRecording:
    return StagedRecording(path)


@pytest.fixture
def recording(staged: Path) -> StagedRecording:
    return load(staged)


def first_update(recording: StagedRecording) -> int:
    """The number of the update that was recorded alone."""
    return recording.config.get("first_step_index", 0)


def assert_losses(recording: StagedRecording, metrics: Metrics, recorded: dict[str, float]) -> None:
    port, total = recording.port, recorded.pop("total", None)
    assert set(recorded) <= {*port.metrics, *port.unused}
    for metric in {port.metrics[name] for name in recorded if name in port.metrics}:
        parts = [recorded[name] for name, ours in port.metrics.items() if ours == metric and name in recorded]
        expected = sum(parts) / len(parts)
        assert float(metrics[metric]) == pytest.approx(expected, rel=LOSS, abs=1e-6), metric
    if total is not None:
        ours = sum(float(value) for name, value in metrics.items() if name.endswith("/loss"))
        assert ours == pytest.approx(total, rel=LOSS)


def rounding(recording: StagedRecording) -> dict[str, tuple[str, ...]]:
    """Parameters whose gradient is zero but for rounding, by network."""
    return {name: part.rounding for name, part in recording.port.parts.items()}


def assert_state(recording: StagedRecording, state: LearnerState, prefix: str) -> None:
    assert_weights(state.params, recording.weights(prefix), rounding(recording))
    assert_weights(state.targets, recording.weights(prefix, SLOW))


def test_every_recorded_weight_is_read(recording: StagedRecording) -> None:
    for prefix in ("param", "grad", "step_param", "multi/final_param"):
        assert recording.below(prefix)
        assert recording.unread(prefix) == []


def test_stages_are_in_the_recorded_order(recording: StagedRecording) -> None:
    """Networks of one stage of ours may be trained one after the other, where their losses do not see each other."""
    terms = {term.name: term for term in recording.algorithm.losses}
    stages = recording.update_spec(first_update(recording)).stages
    networks = [name for stage in stages for term in stage for name in terms[term].trains]
    ours = [place.split("/")[0] for name in networks for place in recording.port.parts[name].places]
    theirs = [name for _, names in recording.config["stages"] for name in names]
    assert list(dict.fromkeys(ours)) == theirs


def test_losses_and_gradients_of_each_stage(recording: StagedRecording) -> None:
    metrics, gradients = recording.update(recording.state(), first_update(recording))
    assert_losses(recording, metrics, recording.losses())
    expected = recording.gradients()
    assert set(gradients) - {"temperature"} == set(expected)  # DAC's eta has no loss in the authors' code.
    compared = {name: gradients[name] for name in expected}
    assert_gradients(compared, expected, rounding(recording))


def test_weights_after_one_update(recording: StagedRecording) -> None:
    state = recording.state()
    recording.update(state, first_update(recording), "step_draw")
    assert_state(recording, state, "step_param")


def test_losses_and_weights_of_five_updates(recording: StagedRecording) -> None:
    state = recording.state()
    for number in range(5):
        prefix = f"multi/{number}/"
        metrics, _ = recording.update(state, number, prefix=prefix)
        assert_losses(recording, metrics, recording.losses(prefix))
        if "eta_after" in recording.below(prefix[:-1]):
            eta = float(recording.below(prefix[:-1])["eta_after"])
            assert float(state.params["temperature"]["value"]) == pytest.approx(eta, rel=1e-6)
    assert_state(recording, state, "multi/final_param")


def test_sampled_actions(recording: StagedRecording) -> None:
    sampler = recording.cfg.sampler()
    pairs = {"sample": recording.cfg.explorer() or sampler, "eval": sampler}  # Recorded while exploring, if it differs.
    for name, acting in pairs.items():
        if recording.below(name):
            ours, theirs = recording.acted(acting, name)
            torch.testing.assert_close(ours, theirs.clamp(-1, 1), atol=ACTION, rtol=0)  # QGPO's authors do not clip.


@pytest.mark.parametrize("name", ["qgpo_a", "qgpo_even_a"])
def test_support_of_qgpo(name: str) -> None:
    """The M actions per state that the authors store, at s and at s'."""
    recording = load(GOLDEN / f"{name}.npz")
    batch, cfg, view = recording.batch(), recording.cfg, View.of(recording.modules, recording.weights("param"))
    for stored, observations in (("fake_a", batch.observations), ("fake_a_", batch.next_observations)):
        theirs = recording.below("batch")[stored]
        noise = ReplayedNoise(
            recording.action_dim, [recording.below(f"support/{stored}")["init"].reshape(theirs.shape)]
        )
        ours = sample_support(Networks(view, view, view), observations, noise, cfg)
        torch.testing.assert_close(ours, theirs.clamp(-1, 1), atol=ACTION, rtol=0)


def test_pretraining_of_bdpo() -> None:
    recording = load(GOLDEN / "bdpo_a.npz")
    state, spec = recording.state(), replace(recording.cfg, pretrain_steps=1).update_spec(0)
    metrics, _ = recording.update(state, 0, "pretrain/draw", spec=spec)
    assert float(metrics["behavior/loss"]) == pytest.approx(float(recording.arrays["pretrain/loss"]), rel=LOSS)
    for ours, slow in ((state.params, ""), (state.targets, SLOW)):
        assert_weights({"actor_slow": ours["actor_slow"]}, recording.weights("pretrain/param", slow))
