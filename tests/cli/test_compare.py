from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from finished_runs import make_run, make_runs


def test_json_of_the_command(call: Any, tmp_path: Path) -> None:
    runs = make_runs(tmp_path / "runs")
    answer = call("compare", runs, "--json", tmp_path / "a.json", "--out", tmp_path / "a.png")
    assert answer.code == 0, answer.err
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["baseline"] == "bc"
    assert found["labels"]["fql"]["mean"]["mean"] == pytest.approx(70)
    assert found["labels"]["fql"]["better"]["mean"] == 1
    assert found["labels"]["bc"]["better"] is None
    assert "P(better than bc)" in answer.out
    # Tasks 1 and 2 of five; the published number is FQL's of the papers' table.
    assert "published: qflow-standard, cube-single, FQL: 96±1 (ours, fql, 2 of its 5 tasks: 70 [" in answer.out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    answer = call("compare", runs, "--baseline", "qflow")
    assert answer.code == 2
    assert "--baseline 'qflow' is no label of these runs: bc, fql." in answer.err


def test_learning_curves_of_the_command(call: Any, tmp_path: Path) -> None:
    runs = make_runs(tmp_path / "runs")
    empty = make_run(runs, "iql", 1, 0, [])
    answer = call("plot", runs, "--out", tmp_path / "a.svg")
    assert answer.code == 0, answer.err
    assert f"note: '{empty}' has no evaluations yet and is left out." in answer.out
    assert (tmp_path / "a.svg").read_text().count('<g id="axes_') == 2  # One for each task.
    assert call("plot", empty, "--out", tmp_path / "b.png").code == 2
