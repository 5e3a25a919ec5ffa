"""Small 2D experiments that several tests look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowpolicies.toy.running import run_toy
from flowpolicies.toy.settings import ToySettings

SMALL: dict[str, Any] = {"width": 8, "batch_size": 16, "flow_steps": 2, "pretraining": 4, "updates": 3}


def _small(run_dir: Path, **changes: Any) -> ToySettings:
    return ToySettings(**{"run_dir": run_dir, "coefficients": (0.5,), "only_train": True, **SMALL, **changes})


@pytest.fixture(scope="session")
def small() -> Callable[..., ToySettings]:
    """Settings of trainings that take a second: of a folder, and what else they change."""
    return _small


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ToySettings:
    """Trainings of two methods on the swiss roll, in a folder that tests leave as it is."""
    settings = _small(tmp_path_factory.mktemp("toy"), methods=("qflow", "fql"), coefficients=(0.5, 5.0))
    run_toy(settings)
    return settings
