"""Shapes that networks, samplers and losses document, asserted while every algorithm trains and acts.

All sizes differ (5 numbers in an observation, 3 in an action, batches of 14), so that no axis can be taken for another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from shapes import checked_shapes, expect
from tiny import known, tiny

from flowpolicies.algorithms import ALGORITHMS, FQL, OfflineAlgorithm
from flowpolicies.core import Batch
from flowpolicies.data import TransitionDataset
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.losses import td
from flowpolicies.networks import Critic, VelocityField
from flowpolicies.samplers import OneStep

OBSERVATION, ACTION, BATCH = 5, 3, 14


def rows(observations: np.ndarray, space: spaces.Space[Any]) -> TransitionDataset:
    """Random transitions with these observations; episodes of 20 steps."""
    rng, n = np.random.default_rng(0), len(observations)
    ends = np.arange(n) % 20 == 19
    return TransitionDataset.from_arrays(
        observations,
        rng.uniform(-2, 2, (n, ACTION)).astype(np.float32),
        rng.normal(size=n),
        np.roll(observations, -1, 0),
        terminations=ends & (np.arange(n) % 40 == 39),
        truncations=ends,
        observation_space=space,
        action_space=spaces.Box(-2, 2, (ACTION,)),
    )


@pytest.fixture(scope="module")
def vectors() -> TransitionDataset:
    """Observations that are vectors."""
    observations = np.random.default_rng(1).normal(size=(120, OBSERVATION)).astype(np.float32)
    return rows(observations, spaces.Box(-np.inf, np.inf, (OBSERVATION,)))


@pytest.fixture(scope="module")
def images() -> TransitionDataset:
    """Observations that are images."""
    observations = np.random.default_rng(1).integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
    return rows(observations, spaces.Box(0, 255, (3, 8, 8), np.uint8))


def train_and_act(model: OfflineAlgorithm) -> None:
    """Trains until every term has had its turn, and acts on single and on many observations, with every sampler."""
    with checked_shapes(model) as seen:
        model.learn_offline(3)
        observations = np.stack([model.observation_space.sample() for _ in range(4)])
        low, high = model.action_space.low, model.action_space.high
        for asked, shape in ((observations, (4, ACTION)), (observations[0], (ACTION,))):
            for options in ({"deterministic": True}, {"deterministic": False}, {"explore": True}):
                actions, _ = model.policy.predict(asked, **options)
                assert actions.shape == shape
                assert ((low <= actions) & (actions <= high)).all()
    assert seen.terms == {term.name for term in model.losses}
    assert seen.networks == set(model.policy.networks)
    assert type(model.policy.sampler).__name__ in seen.samplers


def test_shapes_of_vectors(algorithm, horizon, vectors) -> None:
    train_and_act(tiny(algorithm, dataset=vectors, horizon=horizon, batch_size=BATCH))


@pytest.mark.parametrize("name", ["fql", "iql", "qsm", "sac", "idql"])
def test_shapes_of_images(name, images) -> None:
    options = known(ALGORITHMS[name], {"encoder": "impala_debug"})
    train_and_act(tiny(ALGORITHMS[name], dataset=images, horizon=2, batch_size=BATCH, **options))


def wrong_batch(column: str, change: Any) -> Any:
    """`TransitionBuffer.sample` with one column changed."""
    sample = TransitionBuffer.sample

    def changed(*args: Any, **kwargs: Any) -> Batch:
        batch = sample(*args, **kwargs)
        return batch._replace(**{column: change(getattr(batch, column))})

    return changed


def wrong_result(fn: Any, change: Any) -> Any:
    """A function whose result is changed."""
    return lambda *args, **kwargs: change(fn(*args, **kwargs))


FAULTS: dict[str, tuple[Any, str, Any, str]] = {
    "a critic whose ensemble comes last": (
        Critic,
        "forward",
        wrong_result(Critic.forward, lambda q: q.movedim(0, -1)),
        r"critic, output 0 has shape \[14, 2\], which is not \[E \*\] with E=2, \*=\(14,\)",
    ),
    "a critic that keeps an axis of size 1": (
        Critic,
        "forward",
        wrong_result(Critic.forward, lambda q: q.unsqueeze(-1)),
        r"critic, output 0 has shape \[2, 14, 1\], which is not \[E \*\]",
    ),
    "a flow that gives one number": (
        VelocityField,
        "forward",
        wrong_result(VelocityField.forward, lambda v: v.mean(-1, keepdim=True).clamp(-1, 1)),
        r"actor_onestep, output 0 has shape \[14, 1\], which is not \[\* A\] with \*=\(14,\), A=3",
    ),
    "rewards with an axis of size 1": (
        TransitionBuffer,
        "sample",
        wrong_batch("rewards", lambda r: r.unsqueeze(-1)),
        r"batch.rewards has shape \[14, 1\], which is not \[B\] with B=14",
    ),
    "actions in the units of the action space": (
        TransitionBuffer,
        "sample",
        wrong_batch("actions", lambda a: 2 * a),
        r"batch.actions leaves \[-1, 1\]",
    ),
    "a sampler that does not clip": (
        OneStep,
        "__call__",
        wrong_result(OneStep.__call__, lambda a: a + 2),
        r"OneStep: actions leave \[-1, 1\]",
    ),
    "a loss of one number per row": (
        td,
        "regress_critic",
        wrong_result(td.regress_critic, lambda loss: (loss[0].expand(BATCH), loss[1])),
        r"critic loss has shape \[14\], which is not \[\]",
    ),
    "a metric of one number per member": (
        td,
        "regress_critic",
        wrong_result(td.regress_critic, lambda loss: (loss[0], {"q": loss[0].expand(2)})),
        r"metric critic/q has shape \[2\], which is not \[\]",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault, vectors, monkeypatch) -> None:
    owner, name, changed, message = FAULTS[fault]
    monkeypatch.setattr(owner, name, changed)
    model = tiny(FQL, dataset=vectors, batch_size=BATCH)
    with pytest.raises(AssertionError, match=message):
        train_and_act(model)


def test_leading_axes_are_the_same_in_one_call() -> None:
    sizes: dict[str, Any] = {"A": 3}
    expect("x", torch.zeros(4, 2, 3), "* A", sizes)
    expect("q", torch.zeros(6, 4, 2), "E *", sizes)
    assert sizes == {"A": 3, "*": (4, 2), "E": 6}
    for shape, spec in (((4, 3), "* A"), ((), "* A"), ((4, 2, 2), "* A"), ((4, 2), "E *"), ((1,), "")):
        with pytest.raises(AssertionError, match="which is not"):
            expect("x", torch.zeros(shape), spec, dict(sizes))
    with pytest.raises(AssertionError, match=r"x: torch\.int64"):
        expect("x", torch.zeros(3, dtype=torch.int64), "A", {})
