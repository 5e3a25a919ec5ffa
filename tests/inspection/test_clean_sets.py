"""No false alarm: datasets without faults, of many environments, policies, sizes and forms, are not reported.

Most are left out of the everyday suite; `make data-faults` checks all of them.
"""

from __future__ import annotations

import pytest
from clean_sets import CLEAN_SETS, quiet

from flowpolicies.inspection import inspect_dataset

MEANT = (
    "all rewards are ",
    "components of observations never change",
    "components at a bound in up to",
    "action components that use less than",
    "are trajectories of one step",
    "start outside of the data's range when the environment is reset",
)
"""Warnings that are true of some of these sets: what they report is in the data."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.data_faults if one.is_slow else ()) for name, one in CLEAN_SETS.items()],
)
def test_a_clean_set_raises_no_alarm(name: str) -> None:
    if "v5" in name:
        pytest.importorskip("mujoco")
    if "puzzle" in name or "cube" in name or "maze" in name or "scene" in name:
        pytest.importorskip("ogbench")
    with quiet():
        dataset, env, resimulate = CLEAN_SETS[name].make()
        findings = inspect_dataset(dataset, env=env, resimulate=resimulate).findings
    alarms = [
        f for f in findings if f.severity in ("fault", "warning") and not any(text in f.message for text in MEANT)
    ]
    if "teleport" in name:  # Leaps are a part of this maze, and without a simulator they may be lost ends.
        alarms = [f for f in alarms if (f.severity, f.check) != ("warning", "trajectories")]
    assert alarms == []


def test_there_are_as_many_clean_sets_as_were_tried_by_hand() -> None:
    assert len(CLEAN_SETS) >= 93
    assert sum(not one.is_slow for one in CLEAN_SETS.values()) >= 8
