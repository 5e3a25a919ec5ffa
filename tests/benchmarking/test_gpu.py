"""`benchmarks/gpu.py` on the CPU: what it measures, in which order, and what it does without a GPU, time or data."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from flowpolicies.algorithms import ALGORITHMS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
SMALL = ("--device", "cpu", "--small")
LONG = ("--budget", "1000000")
"""A budget that a busy machine does not use up."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, without what takes seconds, and without the alarm that would end the tests."""
    monkeypatch.delenv("OUT", raising=False)
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "gpu", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "describe_machine", lambda threads: {"threads": threads, "software": {}})
    monkeypatch.setattr(module.faulthandler, "dump_traceback_later", lambda seconds, exit: None)
    return module


def results_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bench-gpu.json").read_text())["results"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_says_so_and_ends_with_code_2(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--small"]) == 2
    assert "there is no CUDA device here" in capsys.readouterr().err


def test_step_times_of_single_updates_seeds_together_and_compiled_ones(gpu: ModuleType, tmp_path: Path) -> None:
    columns = ("eager", "seeds", "compiled", "compiled-tf32")
    words = ["--parts", "steps", "--algorithms", "fql", "--columns", *columns, "--out", str(tmp_path)]
    assert gpu.main([*SMALL, *LONG, *words]) == 0
    found = results_in(tmp_path)
    assert found["products"].keys() == {"fp32", "tf32", "bf16"}
    row = found["steps"]["fql"]
    assert tuple(row) == columns
    assert all(row[column]["size"] == "2x16, batch 16" for column in columns)
    assert all(row[column]["min_ms"] > 0 for column in columns[:-1])
    assert row["compiled-tf32"]["error"].startswith('ValueError: precision="tf32" needs an NVIDIA GPU')
    text = (tmp_path / "bench-gpu.md").read_text()
    assert "| ms per update | eager | seeds | compiled | compiled-tf32 |" in text
    assert "| error |" in text


def test_every_algorithm_is_measured_and_the_important_ones_come_first(gpu: ModuleType) -> None:
    order = gpu.order_of((), ("eager", "seeds", "compiled"))
    assert sorted(order) == sorted((name, c) for name in ALGORITHMS for c in ("eager", "seeds", "compiled"))
    first, rest = len(gpu.FIRST), len(ALGORITHMS) - len(gpu.FIRST)
    columns = [column for _, column in order]
    assert columns[: 2 * first] == ["eager"] * first + ["seeds"] * first
    assert [name for name, _ in order[:first]] == ["qflow", "fql", "ifql", "rql", "qam", "qc"]
    assert columns[2 * first :][:rest] == ["eager"] * rest
    assert order[2 * first + rest :][:first] == [(name, "compiled") for name in gpu.FIRST]


def test_what_no_time_is_left_for_is_named_and_the_process_would_end_in_any_case(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alarms = []
    monkeypatch.setattr(gpu.faulthandler, "dump_traceback_later", lambda seconds, exit: alarms.append((seconds, exit)))
    monkeypatch.setattr(gpu.faulthandler, "cancel_dump_traceback_later", lambda: alarms.append("off"))
    words = [*SMALL, "--parts", "steps", "--budget", "0", "--out", str(tmp_path)]
    assert gpu.main(words) == 0
    assert alarms == [(gpu.GRACE, True), "off"]
    assert gpu.Size().budget + gpu.GRACE < 8 * 60
    steps = results_in(tmp_path)["steps"]
    assert steps.keys() == ALGORITHMS.keys()
    assert all("s were left" in cell["left out"] for row in steps.values() for cell in row.values())
    assert "| qflow | left out | left out | left out |" in (tmp_path / "bench-gpu.md").read_text()


def test_a_kill_loses_nothing_that_was_measured(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measure: Callable[..., dict[str, Any]] = gpu.step_time

    def killed_at_fql(bench: Any, workload: Any, *others: Any) -> dict[str, Any]:
        if workload.algorithm == "fql":
            raise KeyboardInterrupt
        return measure(bench, workload, *others)

    monkeypatch.setattr(gpu, "step_time", killed_at_fql)
    monkeypatch.setattr(gpu, "FIRST", ())
    words = ["--parts", "steps", "--algorithms", "bc", "fql", "--columns", "eager", "--out", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        gpu.main([*SMALL, *LONG, *words])
    assert results_in(tmp_path)["steps"]["bc"]["eager"]["min_ms"] > 0


def test_wrong_names_are_refused_before_anything_is_measured(gpu: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown columns \['eagre'\] \(known: eager, seeds, compiled"):
        gpu.main([*SMALL, "--columns", "eagre", "--out", str(tmp_path)])
    with pytest.raises(ValueError, match="fqll"):
        gpu.main([*SMALL, "--algorithms", "fqll", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_data_that_cannot_be_generated_are_an_error_with_the_last_line_of_the_log(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Failed:
        def wait(self) -> int:
            return 1

        def poll(self) -> int:
            return 1

    (tmp_path / "generation.log").write_text("0 %\nImportError: pip install 'flowpolicies[ogbench]'\n")
    monkeypatch.setattr(gpu, "start_generation", lambda bench: Failed())
    assert gpu.main([*SMALL, *LONG, "--parts", "cube", "--out", str(tmp_path)]) == 0
    found = results_in(tmp_path)
    assert found["data"]["error"].endswith("ImportError: pip install 'flowpolicies[ogbench]'")
    assert "cube" not in found


@pytest.mark.more
def test_both_algorithms_are_trained_on_generated_data_and_evaluated_beside_the_published_numbers(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("ogbench")

    class Clock:
        """Much time to load the data, and for each algorithm enough for one round of updates."""

        seconds, used = 90.0, 0.0

        def __init__(self, seconds: float) -> None:
            self.answers = iter([1e6, *(1e6, 1e6, 0.0) * 2])

        def left(self, share: float = 1.0) -> float:
            return next(self.answers)

    monkeypatch.setattr(gpu, "TimeBudget", Clock)
    folders = ["--out", str(tmp_path), "--data-dir", str(tmp_path / "data")]
    assert gpu.main([*SMALL, "--parts", "cube", *folders]) == 0
    found = results_in(tmp_path)
    assert found["data"]["source"] == "cube-single-play-v0, generated locally: not the published file"
    assert (found["data"]["episodes"], found["data"]["transitions"]) == (2, 120)
    for name, published in {"qflow": 95, "fql": 96}.items():
        cell = found["cube"][name]
        assert cell["published"] == published
        assert cell["preset"] == "ogbench/cube-single-play-task2"
        assert cell["updates"] == 50
        assert cell["ms"] > 0
        assert len(cell["success"]) == cell["seeds"] == 2
        assert not {"error", "left out"} & cell.keys()
    assert found["cube"]["fql"]["hyperparameters"]["alpha"] == 300
    assert found["cube"]["qflow"]["hyperparameters"]["guidance_lambda"] == 5
    assert "| qflow | 2 |" in (tmp_path / "bench-gpu.md").read_text()
