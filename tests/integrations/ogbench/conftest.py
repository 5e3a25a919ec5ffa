from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flowpolicies_ogbench import generate


@pytest.fixture(scope="session")
def pointmaze_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with generated episodes of pointmaze-medium-navigate that reach the goals of tasks 1, 3, 4 and 5."""
    folder = tmp_path_factory.mktemp("pointmaze")
    name = "pointmaze-medium-navigate-singletask-v0"
    generate(name, data_dir=folder, num_episodes=3, max_episode_steps=501, seed=7, progress=False)
    return folder


@pytest.fixture
def global_numpy_state() -> Iterator[None]:
    """Fail the test if it changes NumPy's global random state, which belongs to the user."""
    np.random.seed(0)
    expected = np.random.RandomState(0).get_state()
    yield
    for value, other in zip(np.random.get_state(), expected, strict=True):
        np.testing.assert_array_equal(value, other)
