"""Faults that are put into the data of several environments are found: with an environment, and without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from clean_sets import environment, ogbench_set, quiet, roll_out
from data_faults import FAULTS, Columns

from flowpolicies.data import TransitionDataset
from flowpolicies.inspection import Inspection, inspect_dataset


class Base(NamedTuple):
    """Columns of a clean dataset, and what it is compared with."""

    columns: Columns
    env: Any
    resimulate: Any
    options: dict[str, Any]


def of_gymnasium(name: str, policy: str, episodes: int, steps: int) -> Base:
    if "v5" in name:
        pytest.importorskip("mujoco")
    env = environment(name)
    return Base(roll_out(name, policy, episodes, steps), env, None, {"action_space": env.action_space})


def of_ogbench(name: str, episodes: int, steps: int) -> Base:
    pytest.importorskip("ogbench")
    dataset, env, resimulate = ogbench_set(name, episodes, steps)()
    names = ("observations", "next_observations", "actions", "rewards", "masks", "terminals")
    spaces = {"observation_space": dataset.observation_space, "action_space": dataset.action_space}
    columns = {key: np.array(getattr(dataset, key)) for key in names}
    return Base(columns, env, resimulate, {**spaces, "provenance": dict(dataset.provenance)})


BASES: dict[str, Callable[[], Base]] = {
    "Pendulum": lambda: of_gymnasium("Pendulum-v1", "noisy", 20, 100),
    "HalfCheetah": lambda: of_gymnasium("HalfCheetah-v5", "random", 12, 150),
    "navigate": lambda: of_ogbench("pointmaze-medium-navigate-singletask-v0", 8, 301),
    "stitch": lambda: of_ogbench("pointmaze-medium-stitch-singletask-v0", 20, 201),
    "cube": lambda: of_ogbench("cube-single-play-singletask-v0", 4, 151),
}
SURE = [
    ("all ends lost, by shift", "trajectories"),
    ("ends one row early", "trajectories"),
    ("stale last observations", "trajectories"),
    ("copy with a few changes", "duplicates"),
    ("sentinel -9999", "values"),
    ("a reward of 1e8", "values"),
    ("an observation of 1e30", "values"),
    ("constant component", "environment"),
    ("swapped components", "resimulation"),
    ("degrees in half", "resimulation"),
    ("delayed component", "resimulation"),
    ("rewards scaled in half", "rewards"),
    ("time limits as terminals in half", "rewards"),
]
"""Faults of Pendulum's data that must lead to a finding of the severity "fault" of this check."""

DAILY = {
    "Pendulum": set(FAULTS) - {fault for fault, _ in SURE},
    "HalfCheetah": {"states shifted over ends", "ends one row early", "swapped components", "rewards scaled in half"},
    "stitch": {"all ends lost, by shift", "ends one row early", "rewards late in some", "degrees in half"},
}
"""Faults that the everyday suite puts into the data of each environment."""

UNCHANGED = {("cube", "rewards late in some")}
"""Faults that change nothing, because all rewards of these data are equal."""

DATA_ALONE = {
    "Pendulum": (
        "all ends lost, by shift",
        "ends one row early",
        "stale last observations",
        "time limits as terminals in half",
        "copy with noise",
        "a piece again",
        "sentinel -9999",
        "sentinel 0",
        "spikes",
        "bytes",
        "half precision in half",
        "normalised half",
        "sign of a component in half",
    ),
    "HalfCheetah": ("degrees in half", "sign of a component in half", "delayed component in half"),
}
"""Faults that must be found without an environment."""


def inspect(base: Base, fault: str, *, alone: bool) -> Inspection:
    columns = {key: column.copy() for key, column in base.columns.items()}
    FAULTS[fault](columns, np.random.default_rng(0))
    assert any(not np.array_equal(columns[key], base.columns[key]) for key in columns)
    dataset = TransitionDataset.from_arrays(**columns, **base.options, name=fault)
    if alone:
        return inspect_dataset(dataset)
    # A simulator's states are those of the file, so it cannot judge rows that were added.
    resimulate = base.resimulate if len(dataset) == len(base.columns["rewards"]) else None
    with quiet():
        return inspect_dataset(dataset, env=base.env, resimulate=resimulate)


def reported(inspection: Inspection) -> list[str]:
    return [f"{f.check}: {f.message}" for f in inspection.findings if f.severity in ("fault", "warning")]


@pytest.mark.parametrize(
    ("base", "fault"),
    [
        pytest.param(base, fault, marks=() if fault in DAILY.get(base, set()) else pytest.mark.data_faults)
        for base in BASES
        for fault in FAULTS
        if (base, fault) not in UNCHANGED
    ],
)
def test_a_fault_is_found_with_an_environment(base: str, fault: str) -> None:
    assert reported(inspect(BASES[base](), fault, alone=False))


@pytest.mark.parametrize(("base", "fault"), [(base, fault) for base, faults in DATA_ALONE.items() for fault in faults])
def test_a_fault_is_found_without_an_environment(base: str, fault: str) -> None:
    assert reported(inspect(BASES[base](), fault, alone=True))


@pytest.mark.parametrize(("fault", "check"), SURE)
def test_what_surely_spoils_training_is_a_fault(fault: str, check: str) -> None:
    inspection = inspect(BASES["Pendulum"](), fault, alone=False)
    assert check in [finding.check for finding in inspection.findings if finding.severity == "fault"]
    finding = next(finding for finding in inspection.findings if finding.check == check)
    assert finding.advice


@pytest.mark.data_faults
def test_two_swapped_components_of_28_are_named() -> None:
    inspection = inspect(BASES["cube"](), "swapped components", alone=False)
    (finding,) = (f for f in inspection.findings if f.check == "resimulation" and f.severity == "fault")
    assert "components 0, 1" in finding.message or "components 1, 0" in finding.message
