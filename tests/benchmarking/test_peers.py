"""The updates in JAX, which ours are compared with in speed, compute the same numbers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recording import Recording

from flowpolicies.benchmarking.workloads import COMPARED, Workload, make_model

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # Compiling takes most of the time here.
pytest.importorskip("jax")
pytest.importorskip("optax")
ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
import jax  # noqa: E402  # After the check that it is installed.
import peers  # noqa: E402  # Needs JAX, and the folder that was added to the path.

RECORDED = ("fql_a", "qam_fql_a", "ifql_a", "qam_ifql_a", "qflow_a", "rql_a", "qam_a")

Arrays = dict[str, dict[str, np.ndarray]]


def arrays(trees: Any) -> Arrays:
    return {name: {key: np.array(p.numpy(force=True)) for key, p in tree.items()} for name, tree in trees.items()}


def updater(
    name: str, cfg: Any, specs: Any, params: Any, targets: Any, batch: Any, rate: float = 3e-4
) -> Callable[[Any], tuple[float, dict[str, Arrays]]]:
    """A function of draws: the sum of the losses, and weights and slow copies after one update in JAX."""
    peer, optimizer = peers.PEERS[name], peers.make_optimizer(cfg, rate)
    rates = {key: spec.target_rate for key, spec in specs.items() if spec.target_rate is not None}
    state = peers.first_state(arrays(params), arrays(targets), optimizer)
    columns = {key: column.numpy() for key, column in batch._asdict().items()}
    shapes = peer.draws(*batch.actions.shape, cfg)
    run = jax.jit(lambda draws: peers.update_with(peer, cfg, rates, optimizer, state, columns, draws))

    def update(draws: Any) -> tuple[float, dict[str, Arrays]]:
        assert len(draws) >= len(shapes)  # FQL's code draws once more for a metric.
        given = [draw.numpy().reshape(shape) for (_, shape), draw in zip(shapes, draws, strict=False)]
        after, metrics = run(given)
        return float(metrics["loss"]), after.params

    return update


def assert_equal_weights(theirs: Arrays, ours: Arrays) -> None:
    """Nearly all weights agree to 2e-5; Adam's first step is a sign where a gradient is near zero."""
    assert theirs.keys() == ours.keys()
    for name, tree in ours.items():
        errors = np.concatenate([np.abs(np.asarray(theirs[name][key]) - p).ravel() for key, p in tree.items()])
        assert errors.max() <= 6.1e-4, name
        assert (errors > 2e-5).mean() <= 0.005, name


@pytest.mark.parametrize("stem", RECORDED)
def test_peer_repeats_an_update_of_the_authors_code(stem: str) -> None:
    recording = Recording(ROOT / "tests" / "golden" / f"{stem}.npz")
    start = recording.weights("param"), recording.weights("param", target=True)
    rate = recording.config.get("lr", 3e-4)
    update = updater(recording.algorithm.name, recording.cfg, recording.specs, *start, recording.batch, rate)
    loss, _ = update(recording.draws("draw"))
    assert loss == pytest.approx(recording.losses()["total"], rel=1e-4)
    _, after = update(recording.draws("step_draw"))
    assert_equal_weights(after["online"], arrays(recording.weights("step_param")))
    assert_equal_weights(after["target"], arrays(recording.weights("step_param", target=True)))


@pytest.mark.parametrize("name", COMPARED)
def test_peer_computes_what_the_measured_update_computes(name: str) -> None:
    fields = {**vars(COMPARED[name]), "width": 16, "batch_size": 12, "rows": 300}
    model = make_model(Workload(**fields))
    learner, state, batch = model._learner, model._state, model.transitions.sample(12)
    spec = model.cfg.update_spec(0)
    draws = learner.draws(state, batch, spec, model._noise_generators)
    update = updater(model.name, model.cfg, learner.specs, state.params, state.targets, batch)
    metrics = learner.update(state, batch, draws, spec, torch.tensor(3e-4))
    loss, after = update(draws[0])
    terms = [term.name for term in type(model).losses]
    assert loss == pytest.approx(sum(float(metrics[f"{term}/loss"]) for term in terms), rel=1e-4)
    assert_equal_weights(after["online"], arrays(state.params))
    assert_equal_weights(after["target"], arrays(state.targets))
