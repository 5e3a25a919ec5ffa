from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flowpolicies.benchmarking.results import changes, read_results, save_results

MACHINE: dict[str, Any] = {
    "processor": "EPYC",
    "cpu_count": 2,
    "cuda": None,
    "flags": ["avx2"],
    "threads": 1,
    "software": {"flowpolicies_commit": "0123456789abcdef", "torch": "2.13.0"},
}


def results(eager: float, compiled: float = 5.0) -> dict[str, Any]:
    cells = {name: {"min_ms": ms, "median_ms": 2 * ms, "rounds": 7} for name, ms in (("eager", eager), ("c", compiled))}
    return {"results": {"fql": {"gflop": 12.0, **cells}}}


def test_results_name_kind_command_time_and_machine(tmp_path: Path) -> None:
    lines = save_results(
        "step", tmp_path, results(10.0), MACHINE, ["flowpolicies", "bench", "step", "--algorithms", "fql"]
    )
    assert lines == [f"written to {tmp_path / 'bench-step.json'}", "no results before these to compare with"]
    found = json.loads((tmp_path / "bench-step.json").read_text())
    assert found["kind"] == "step"
    assert found["command"] == "flowpolicies bench step --algorithms fql"
    assert found["machine"] == MACHINE
    assert found["results"] == results(10.0)["results"]
    assert read_results("step", tmp_path) == found
    assert read_results("act", tmp_path) is None


def test_changes_against_the_last_results_are_printed_in_percent(tmp_path: Path) -> None:
    save_results("step", tmp_path, results(10.0), MACHINE, [])
    _, title, *lines = save_results("step", tmp_path, results(8.0, 5.05), MACHINE, [])
    assert title.endswith("(0123456789ab): 1 of 2 times by 3 % or more")
    assert lines == ["  results/fql/eager/min_ms: 10 -> 8 (-20 %)"]


def test_another_machine_or_number_of_threads_is_not_compared(tmp_path: Path) -> None:
    for other in ({"processor": "Xeon"}, {"threads": 2}):
        save_results("step", tmp_path, results(10.0), MACHINE | other, [])
        _, line = save_results("step", tmp_path, results(20.0), MACHINE, [])
        assert line.startswith("not compared with the results of ")


def test_only_times_that_both_have_are_compared() -> None:
    before = {"rows": 5, "a": {"p50_ms": 1.0, "calls": 3}, "b": {"us_median": 4.0}, "gone": {"min_ms": 1.0}}
    after = {"rows": 6, "a": {"p50_ms": 2.0, "calls": 9}, "b": {"us_median": 3.0}, "new": {"min_ms": 1.0}}
    assert [(c.name, round(c.percent)) for c in changes(before, after)] == [("a/p50_ms", 100), ("b/us_median", -25)]
