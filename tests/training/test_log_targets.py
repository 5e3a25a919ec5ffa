"""TensorBoard can be left out, and Weights & Biases added."""

from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType
from typing import Any

import pytest

from flowpolicies.training import TrainSettings
from flowpolicies.training.logs import read_table


class FakeRun:
    """What `wandb.init` returns."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.metrics: dict[str, str] = {}
        self.finished = 0

    def define_metric(self, name: str, step_metric: str) -> None:
        self.metrics[name] = step_metric

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def inits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], FakeRun]]:
    """Replaces the package wandb; each `wandb.init` appends its arguments and its run."""
    found: list[tuple[dict[str, Any], FakeRun]] = []
    module: Any = ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)

    def init(**options: Any) -> FakeRun:
        found.append((options, FakeRun()))
        return found[-1][1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return found


def test_both_phases_are_one_run_of_weights_and_biases(run: Any, inits: list[tuple[dict[str, Any], FakeRun]]) -> None:
    folder = run(wandb="cubes", online_steps=8)
    ((options, wandb),) = inits
    assert (options["project"], options["name"]) == ("cubes", folder.path.name)
    assert options["config"]["settings"]["steps"] == 10
    assert wandb.metrics == {"offline/*": "offline/step", "online/*": "online/step"}
    for phase, steps in (("offline", [5, 10]), ("online", [5, 8])):
        rows = [row for row in wandb.rows if f"{phase}/eval/success_rate" in row]
        assert [row[f"{phase}/step"] for row in rows] == steps
    columns = read_table(folder.progress).columns
    logged = {key.partition("/")[2] for row in wandb.rows for key in row}
    assert {name for name in columns if name.startswith("train/")} <= logged
    assert wandb.finished == 1
    run(wandb="cubes", online_steps=16, resume=True)
    assert inits[1][0]["id"] == options["id"]
    assert inits[1][0]["resume"] == "allow"
    run(wandb="cubes", overwrite=True)
    assert inits[2][0]["project"] == "cubes"


def test_tensorboard_can_be_left_out(run: Any) -> None:
    folder = run(tensorboard=False)
    assert not folder.events.exists()
    assert folder.progress.read_text()
    assert run(overwrite=True).events.is_dir()


def test_a_missing_package_is_reported_before_the_data_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowpolicies.training.settings.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'flowpolicies\[wandb\]'"):
        TrainSettings(wandb="cubes", dataset="npz:missing.npz").check_inputs()
