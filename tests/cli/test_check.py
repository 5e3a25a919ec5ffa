"""Exit codes and reports of `flowpolicies data check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pendulum_data import SPACES, STEPS, roll_out

from flowpolicies.data import TransitionDataset


@pytest.fixture(scope="module")
def columns() -> dict[str, Any]:
    """Random episodes of Pendulum, as arguments of `from_arrays`."""
    rng = np.random.default_rng(0)
    return {**roll_out(lambda _: rng.uniform(-2, 2, 1)), "action_space": SPACES["action_space"]}


@pytest.fixture
def clean(columns: dict[str, Any], tmp_path: Path) -> Path:
    """Path of a dataset without faults."""
    return TransitionDataset.from_arrays(**columns, name="pendulum").save(tmp_path / "clean.npz")


def test_clean_data_exits_with_0(call: Any, clean: Path) -> None:
    answer = call("data", "check", f"npz:{clean}", "--env", "Pendulum-v1")
    assert answer.code == 0, answer.out
    assert answer.out.startswith("pendulum\n  transitions   1,200\n  trajectories  12, of 100 steps")
    assert answer.out.endswith("no faults, no warnings\n")
    assert answer.err == ""


def test_a_fault_exits_with_1_and_says_where(call: Any, columns: dict[str, Any], tmp_path: Path) -> None:
    shifted = {**columns, "actions": np.roll(columns["actions"], 1, axis=0)}
    path = TransitionDataset.from_arrays(**shifted).save(tmp_path / "shifted.npz")
    report = tmp_path / "reports" / "check.html"
    answer = call("data", "check", f"npz:{path}", "--html", report)
    assert answer.code == 1
    assert "FAULT [alignment] actions are shifted by one row" in answer.out
    assert "1 fault, no warnings" in answer.out
    assert answer.out.endswith(f"Wrote '{report}'.\n")
    page = report.read_text()
    assert "actions are shifted by one row" in page
    assert "<svg" in page


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("observations", lambda a: np.where(np.arange(len(a))[:, None] == 437, np.nan, a), "NaN or infinite"),
        ("actions", lambda a: 3 * a, "so their bounds cannot be guessed"),
        ("observations", lambda a: np.insert(a, np.arange(0, len(a), STEPS), a[0], axis=0), "fields differ in length"),
    ],
)
def test_data_that_cannot_be_loaded_is_a_fault(
    key: str, change: Any, message: str, call: Any, columns: dict[str, Any], tmp_path: Path
) -> None:
    arrays = {name: column for name, column in columns.items() if name != "action_space"}
    arrays |= {"actions": columns["actions"] / 2}
    arrays[key] = change(arrays[key])
    np.savez(tmp_path / "data.npz", **arrays)
    answer = call("data", "check", f"npz:{tmp_path / 'data.npz'}", "--html", tmp_path / "check.html")
    assert answer.code == 1, answer.err
    assert "FAULT [loading] the data cannot be loaded: dataset 'data': " in answer.out
    assert message in " ".join(answer.out.split())
    assert "Traceback" not in answer.out + answer.err
    assert "Fault" in (tmp_path / "check.html").read_text()


def test_lengths_that_differ_are_a_fault_in_hdf5_too(call: Any, columns: dict[str, Any], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        for key in ("observations", "actions", "rewards"):
            file[key] = columns[key][: 399 if key == "actions" else 400]
        file["terminals"], file["timeouts"] = np.zeros(400, bool), np.arange(400) % 100 == 99
    answer = call("data", "check", f"hdf5:{tmp_path / 'data.hdf5'}")
    assert answer.code == 1, answer.err
    report = " ".join(answer.out.split())
    assert "FAULT [loading] the data cannot be loaded: " in report
    assert "has 400 terminals, but these shapes: {'actions': (399, 1)}" in report
    wrong = call("data", "check", f"hdf5:{tmp_path / 'data.hdf5'},terminals=here")
    assert (wrong.code, wrong.out) == (2, "")


def test_compact_data_can_be_checked(call: Any, clean: Path) -> None:
    full, compact = call("data", "check", f"npz:{clean}"), call("data", "check", f"npz:{clean},compact=true")
    assert (compact.code, compact.err) == (0, "")
    assert compact.out.splitlines()[-1] == full.out.splitlines()[-1]


def test_a_dataset_of_another_environment_is_a_fault(call: Any, clean: Path) -> None:
    answer = call("data", "check", f"npz:{clean}", "--env", "MountainCarContinuous-v0")
    assert answer.code == 1
    assert "FAULT [environment] the observation_space of the dataset is" in answer.out
    assert "FAULT [environment] the action_space of the dataset is" in answer.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("npz:{folder}/half.npz",), "is not an .npz file, or only a part of one"),
        (("npz:{folder}/none.npz",), "no such file"),
        (("nzp:{folder}/clean.npz",), "unknown dataset source 'nzp'"),
        (("npz:{folder}/clean.npz", "--env", "Pendolum-v1"), "Did you mean: `Pendulum`?"),
        (("npz:{folder}/clean.npz", "--sample", "0"), "the checks need at least one row"),
        ((), "Required"),
    ],
)
def test_what_cannot_be_checked_exits_with_2(
    words: tuple[str, ...], message: str, call: Any, clean: Path, tmp_path: Path
) -> None:
    (tmp_path / "half.npz").write_bytes(clean.read_bytes()[: clean.stat().st_size // 2])
    answer = call("data", "check", *(word.format(folder=tmp_path) for word in words))
    assert answer.code == 2
    assert message in answer.err
    assert "Traceback" not in answer.err


def test_a_mistake_of_ours_is_no_fault_of_the_data(call: Any, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("flowpolicies.inspection.inspect_dataset", fail)
    answer = call("data", "check", f"npz:{clean}")
    assert answer.code == 2
    assert "KeyError: 'ours'" in answer.err
