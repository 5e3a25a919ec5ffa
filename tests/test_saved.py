"""Models that an earlier version of the package saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowpolicies import FQL, RQL, FlowPolicy, OfflineAlgorithm, QFlow

SAVED = Path(__file__).parent / "saved"
ALGORITHM_OF: dict[str, type[OfflineAlgorithm]] = {"flow": QFlow, "chunked": RQL, "dict": FQL}


def recorded(name: str) -> tuple[Any, Any]:
    """Observations, and the actions that the model had there when it was saved."""
    with np.load(SAVED / "actions.npz") as file:
        actions, prefix = file[f"{name}/actions"], f"{name}/observations"
        if prefix in file:
            return file[prefix], actions
        return {key.removeprefix(f"{prefix}/"): file[key] for key in file if key.startswith(f"{prefix}/")}, actions


@pytest.mark.parametrize("name", ALGORITHM_OF)
def test_a_policy_file_of_commit_7a9d93c_acts_as_it_did(name: str) -> None:
    observations, actions = recorded(name)
    policy = FlowPolicy.load(SAVED / f"{name}.safetensors", device="cpu")
    np.testing.assert_allclose(policy.predict(observations, deterministic=True)[0], actions, atol=1e-6)


@pytest.mark.filterwarnings("ignore:flowpolicies.data.buffer is now:DeprecationWarning")
@pytest.mark.parametrize("name", ALGORITHM_OF)
def test_a_model_zip_of_commit_7a9d93c_acts_as_it_did(name: str) -> None:
    observations, actions = recorded(name)
    model = ALGORITHM_OF[name].load(SAVED / f"{name}.zip", device="cpu")
    np.testing.assert_allclose(model.predict(observations, deterministic=True)[0], actions, atol=1e-6)
    assert model.offline_steps == 3
