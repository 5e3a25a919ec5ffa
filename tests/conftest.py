"""Options of the whole test suite."""

import ctypes.util
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

for folder in ("parity", "support", "../tools"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
torch.set_num_threads(1)
if "DISPLAY" not in os.environ and ctypes.util.find_library("EGL") and "mujoco" not in sys.modules:
    os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo reads it when it is imported.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Shells start background jobs so, and processes hand it on: the tests of Ctrl-C would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)

from tiny import pendulum_data

from flowpolicies.algorithms import ALGORITHMS, OfflineAlgorithm
from flowpolicies.data import TransitionDataset


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-dir", default=None, help="directory of recordings to replay instead of tests/golden")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of `make data-faults` and `make more`, unless their marker is asked for."""
    asked = config.getoption("markexpr") or ""
    for marker in ("data_faults", "faults", "more"):
        left_out = [] if marker in asked else [item for item in items if item.get_closest_marker(marker)]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker(marker)]


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
    """Random transitions in Pendulum's spaces."""
    return pendulum_data()
