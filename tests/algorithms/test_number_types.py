"""Every algorithm computes in float32 and stays finite, whatever the process has set up around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from tiny import known, tiny

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.data import TransitionDataset

STATES = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)


@contextmanager
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def trained(cls: type[OfflineAlgorithm], data: TransitionDataset, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Actions and weights after one update."""
    model = tiny(cls, dataset=data, **options)
    model.learn_offline(1)
    return model.predict(STATES)[0], {key: value.clone() for key, value in model.policy.state_dict().items()}


def test_the_default_type_of_torch_changes_nothing(algorithm: type[OfflineAlgorithm], data: TransitionDataset) -> None:
    actions, weights = trained(algorithm, data)
    with double_by_default():
        found, doubles = trained(algorithm, data)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, actions)
    for key, value in weights.items():
        assert doubles[key].dtype == value.dtype
        assert torch.equal(doubles[key], value), key


def test_autocast_leaves_actions_and_weights_float32(
    algorithm: type[OfflineAlgorithm], data: TransitionDataset
) -> None:
    model = tiny(algorithm, dataset=data)
    model.policy.seed(0)
    plain = model.predict(STATES)[0]
    model.policy.seed(0)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.predict(STATES)[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain, atol=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, weights = trained(algorithm, data)
    assert np.isfinite(found).all()
    for key, value in weights.items():
        assert value.dtype == torch.float32, key
        assert value.isfinite().all(), key


@pytest.mark.parametrize("kind", ["bandit", "nothing", "black images"])
def test_constant_zeros_leave_weights_finite(algorithm: type[OfflineAlgorithm], kind: str) -> None:
    """A stateless task; a task in which everything is 0, so that new networks are exactly 0; the same with images."""
    n = 64
    zeros = np.zeros((n, 3, 16, 16), np.uint8) if kind == "black images" else np.zeros((n, 3))
    actions = np.random.default_rng(0).uniform(-1, 1, (n, 1)) if kind == "bandit" else np.zeros((n, 1))
    data = TransitionDataset.from_arrays(
        zeros, actions, -np.square(actions - 0.5).sum(1) if kind == "bandit" else np.zeros(n), zeros,
        terminations=np.arange(n) % 8 == 7,
    )  # fmt: skip
    options = known(algorithm, {"horizon": 1, "encoder": "impala_debug"})
    model = tiny(algorithm, dataset=data, **options).learn_offline(3)
    for key, value in model.policy.state_dict().items():
        assert value.isfinite().all(), key
    assert np.isfinite(model.predict(zeros[:2].astype(model.observation_space.dtype))[0]).all()
