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
