from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_a_run_is_reported_with_its_model_and_its_data(
    call: Any, tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python: pip install 'flowpolicies[report]'")
    monkeypatch.setattr("flowpolicies.pages.render.vega_script", lambda: "")  # It takes seconds.
    assert call("train", "bc", *tiny_run).code == 0
    out = tmp_path / "new" / "report.html"
    answer = call("report", f"mine={tmp_path / 'run'}", "--out", out, "--diagnose", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"Looking at the model of '{tmp_path / 'run'}' ...\nWrote '{out}' (")
    page = out.read_text()
    for text in (
        "Pendulum-v1, dimension 0 of the action",
        "action_saturation",
        "in units of its bounds",
        "mine reaches",
    ):
        assert text in page
    (tmp_path / "run" / "model.zip").unlink()
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        checkpoint.unlink()
    answer = call("report", tmp_path / "run", "--out", out, "--diagnose")
    assert answer.code == 0, answer.err  # What cannot be looked at is said on the page.
    assert "could not be diagnosed" in out.read_text()
