"""Real episodes of Pendulum."""

from __future__ import annotations

import numpy as np
import pytest
from pendulum_data import Array, Columns, roll_out


@pytest.fixture(scope="session")
def pendulum() -> Columns:
    """Episodes under a controller with noise."""
    rng = np.random.default_rng(0)

    def act(observation: Array) -> Array:
        return rng.normal(-observation[1:2] - 0.3 * observation[2:], 0.5)

    return roll_out(act)


@pytest.fixture
def columns(pendulum: Columns) -> Columns:
    """A copy of the episodes that a test may change."""
    return {key: column.copy() for key, column in pendulum.items()}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the many datasets of `make data-faults` unless the marker is asked for."""
    if "data_faults" in (config.getoption("markexpr") or ""):
        return
    many = [item for item in items if item.get_closest_marker("data_faults")]
    if many:
        config.hook.pytest_deselected(items=many)
        items[:] = [item for item in items if not item.get_closest_marker("data_faults")]
