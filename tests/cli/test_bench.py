"""`flowpolicies bench`: measurements with files of results, and the page that is made of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from flowpolicies.benchmarking import machine, step
from flowpolicies.benchmarking.workloads import Workload

pytestmark = pytest.mark.filterwarnings("ignore:other processes use this machine")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A small row, no search for the fastest product, and afterwards the cores and threads of before."""
    rows = {"fql-small": Workload(algorithm="fql", width=8, depth=1, batch_size=4, rows=100)}
    monkeypatch.setattr(step, "COMPARED", rows)
    monkeypatch.setattr(step, "gemm_peak", lambda **_: {"1x1x1": {"torch": 1.0, "update": 2.0}})
    monkeypatch.setattr(machine, "matmul_kernel", lambda: "oneDNN test")
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    yield
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


def test_a_measurement_is_written_and_compared_with_the_last_one(call: Any, tmp_path: Path) -> None:
    words = ["bench", "step", "--algorithms", "fql-small", "--columns", "eager", "--seconds", "0"]
    first = call(*words, "--out-dir", tmp_path)
    assert first.code == 0, first.err
    assert "no results before these" in first.out
    found = json.loads((tmp_path / "bench-step.json").read_text())
    assert found["command"].startswith("flowpolicies bench step --algorithms fql-small")
    assert found["machine"]["matmul_kernel"] == "oneDNN test"
    assert (found["machine"]["threads"], len(found["machine"]["cores_used"])) == (1, 1)
    again = call(*words, "--out-dir", tmp_path)
    assert re.search(r"changes since .*: \d of \d times by 3 % or more", again.out)


def test_the_page_is_made_of_the_results(call: Any, tmp_path: Path) -> None:
    call("bench", "step", "--algorithms", "fql-small", "--columns", "eager", "--seconds", "0", "--out-dir", tmp_path)
    answer = call("bench", "page", tmp_path, "--page", tmp_path / "page.md")
    assert answer.code == 0, answer.err
    text = (tmp_path / "page.md").read_text()
    assert "# Performance" in text
    assert re.search(r"\| fql-small \| 1x8, batch 4 \|", text)
    assert "oneDNN test" in text


def test_a_page_without_results_says_how_to_measure(call: Any, tmp_path: Path) -> None:
    answer = call("bench", "page", tmp_path, "--page", tmp_path / "page.md")
    assert answer.code == 2
    assert f"no results in '{tmp_path}': measure first" in answer.err
    assert not (tmp_path / "page.md").exists()
