from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flowpolicies.diagnostics import DIAGNOSTICS
from flowpolicies.training import RunFolder


def test_a_run_is_diagnosed_with_its_own_data_and_environment(call: Any, tiny_run: Any, tmp_path: Path) -> None:
    small = ("--value-hidden-dims", 16, 16, "--eval-episodes", 0)
    assert call("train", "fql", *tiny_run, *small, "--reward-transform", "normalize").code == 0
    words = ("diagnose", tmp_path / "run", "--samples", 64, "--device", "cpu")
    answer = call(*words, "--episodes", 1, "--json", tmp_path / "a.json")
    record = json.loads((tmp_path / "a.json").read_text())
    readings = {reading["name"]: reading for reading in record["readings"]}
    assert list(readings) == list(DIAGNOSTICS)
    assert answer.code == int(record["judgement"] == "bad"), answer.err
    assert answer.out.startswith(f"fql after 10 offline, 0 online steps: {record['judgement']}\n")
    assert readings["realized_return"]["details"]["episodes"] == 1
    assert readings["realized_return"]["details"]["realized"] < -50
    without = call(*words, "--episodes", 0)
    assert "not applicable  realized_return: there is no environment" in without.out


def test_what_cannot_be_diagnosed_is_refused(call: Any, tiny_run: Any, tmp_path: Path) -> None:
    answer = call("diagnose", tmp_path / "nothing")
    assert answer.code == 2
    assert "is not the folder of a run: it has no config.json" in answer.err
    assert call("train", "bc", *tiny_run, "--eval-episodes", 0).code == 0
    folder = RunFolder(tmp_path / "run")
    record = folder.read_config()
    folder.write_config({**record, "settings": {**record["settings"], "dataset": "sb3:a.pkl,trust=true"}})
    answer = call("diagnose", folder.path)
    assert answer.code == 2
    assert "asks for trust itself" in answer.err
    folder.write_config({**record, "env": "trap_module:Trap-v0", "settings": {**record["settings"], "env": None}})
    assert "does not begin with a source of environments" in call("diagnose", folder.path).err
