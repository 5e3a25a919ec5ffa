"""`benchmarks/gpu.py` on the CPU: which variants it measures, and what it does where there is no GPU."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, without compiled variants, which take a minute each."""
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "gpu", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "describe_machine", lambda threads: {"threads": threads, "software": {}})
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_says_so_and_ends_with_code_2(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--tiny"]) == 2
    assert "there is no CUDA device here" in capsys.readouterr().err


def test_a_rehearsal_on_the_cpu_measures_what_can_be_measured_there(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "VARIANTS", {"eager": {}, "impossible": {"compile": object()}})
    words = ["--device", "cpu", "--tiny", "--seconds", "0", "--algorithms", "fql", "--seeds"]
    assert gpu.main([*words, "--out-dir", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "bench-gpu.json").read_text())
    assert found["products"].keys() == {"fp32", "tf32", "bf16"}
    row = found["results"]["fql"]
    assert row["size"] == "2x16, batch 16"
    assert row["eager"]["min_ms"] > 0
    assert "impossible" not in row
    assert "  impossible: TypeError: " in capsys.readouterr().out  # What one variant lacks does not end the others.


def test_what_no_time_is_left_for_is_named(gpu: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu.main(["--device", "cpu", "--tiny", "--budget", "0", "--out-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert all(f"{name}: left out, because " in out for name in ("fql", "qflow", "rql"))
