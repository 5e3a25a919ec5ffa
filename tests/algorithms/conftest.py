"""Fixtures of contract tests."""

from __future__ import annotations

import pytest
from tiny import pendulum_data

from flowpolicies.algorithms import ALGORITHMS, OfflineAlgorithm
from flowpolicies.data import TransitionDataset


@pytest.fixture(params=list(ALGORITHMS.values()), ids=list(ALGORITHMS))
def algorithm(request: pytest.FixtureRequest) -> type[OfflineAlgorithm]:
    """Every registered algorithm."""
    return request.param


@pytest.fixture(params=[1, 3], ids=["single", "chunked"])
def horizon(request: pytest.FixtureRequest) -> int:
    """Without and with action chunks."""
    return request.param


@pytest.fixture(scope="session")
def data() -> TransitionDataset:
    return pendulum_data()
