"""The page on performance: its tables and its advice follow from files of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowpolicies.benchmarking.page import KINDS, make_page, number

ROOT = Path(__file__).parents[2]

MACHINE: dict[str, Any] = {
    "processor": "EPYC",
    "cpu_count": 2,
    "flags": ["avx512f"],
    "threads": 1,
    "load_average": 0.1,
    "matmul_kernel": "oneDNN brg",
    "software": {"torch": "2.13.0", "jax": "0.10.2", "flowpolicies_commit": "0123456789abcdef0123-dirty"},
}


def cell(ms: float, **more: float) -> dict[str, float]:
    return {"min_ms": ms, "median_ms": ms, "rounds": 5, **more}


STEP = {
    "peak": {"256x512x512": {"torch": 90.0, "update": 100.0}},
    "results": {
        "fql": {
            "algorithm": "fql",
            "size": "4x512, batch 256",
            "gflop": 12.0,
            "eager": cell(150.0, ratio=1.05, share_of_peak=0.8, first_update_s=0.5),
            "compiled": cell(120.0, ratio=0.84, share_of_peak=1.0, first_update_s=30.5),
            "jax": cell(143.0, ratio=1.0, first_update_s=6.0),
            "shares": {"products": 0.75, "elementwise": 0.13},
        },
        "bc": {
            "algorithm": "bc",
            "size": "4x512, batch 256",
            "gflop": 1.65,
            "eager": cell(20.0, share_of_peak=0.83, first_update_s=0.1),
        },
    },
}
SCALING = {
    "algorithm": "qflow",
    "size": "4x256, batch 256",
    "results": {"threads": {"1": cell(30.0), "2": cell(20.0)}, "seeds": {"1": cell(30.0), "8": cell(24.0)}, "rows": {}},
}
REPLAY = {
    "rows": 1000,
    "batch_size": 256,
    "observation_dim": 40,
    "action_dim": 5,
    "results": {
        f"{kind}, h = 1": {"min_us": us, "median_us": us + 1}
        for kind, us in (("memory", 49.0), ("compact", 79.0), ("memory map", 249.0))
    },
}
ACT = {
    "observation_dim": 40,
    "action_dim": 5,
    "results": {"flow": {"flowpolicies": {"p50_ms": 0.75, "p99_ms": 1.2, "min_ms": 0.7}, "target_p50_ms": 0.75}},
    "outside": {"p50_ms": 0.05, "p99_ms": 0.09, "min_ms": 0.04, "target_p50_ms": 0.06},
}
ONLINE = {
    "settings": {"env_id": "Pendulum-v1", "n_envs": 1, "hidden_dims": [128, 128], "batch_size": 256},
    "learning": {"sb3_sac": {"min_us": 4000.0, "ratio": 1.0}, "sac": {"min_us": 4400.0, "ratio": 1.1}},
    "collecting": {"environment": {"min_us": 20.0}, "sac": {"min_us": 240.0, "overhead_ratio": 1.25}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with results of all kinds."""
    for kind, data in zip(KINDS, (STEP, ACT, ONLINE, REPLAY, SCALING), strict=True):
        common = {"kind": kind, "command": f"flowpolicies bench {kind}", "time": "2026-11-26T13:00:00+00:00"}
        (tmp_path / f"bench-{kind}.json").write_text(json.dumps({**common, "machine": MACHINE, **data}))
    return tmp_path


def test_a_row_shows_times_ratios_and_what_is_wanted(folder: Path) -> None:
    page = make_page(folder)
    assert "| fql | 4x512, batch 256 | 143 | 150: 1.05 (<= 1.00) | 120: 0.84 (<= 0.80) |  |" in page
    assert "| update | products | elementwise |\n| --- | --- | --- |\n| fql | 75 % | 13 % |" in page
    assert "| bc | 4x512, batch 256 | 1.65 | 20 | 83 % |" in page
    assert "| 256x512x512 | 90.0 | 100.0 |  |" in page
    assert "| flow | 0.75 / 1.2 | <= 0.75 |" in page
    assert "| outside of the networks | 0.05 / 0.09 | <= 0.06 |" in page
    assert "| sac | 4,400 | 1.1 |" in page
    assert "| sac | 240 | 1.25 |" in page


def test_every_measurement_names_its_command_commit_and_hardware(folder: Path) -> None:
    page = make_page(folder)
    for kind in KINDS:
        (line,) = [line for line in page.splitlines() if line.startswith(f"| [{kind}](results/bench-{kind}.json)")]
        assert f"`flowpolicies bench {kind}`" in line
        assert "`0123456789ab-dirty`" in line
        assert "EPYC, 2 cores (avx512f); 1 used, load 0.1" in line
        assert "torch 2.13.0, jax 0.10.2; oneDNN brg" in line


def test_advice_follows_from_the_numbers(folder: Path) -> None:
    page = make_page(folder)
    assert "fql 20 % (30 s, repaid after 1,000)" in page  # 30 ms of 150 are saved, and 30 s were spent.
    assert "2 threads make one update 1.50 times as fast" in page
    assert "An update of 8 seeds together takes 0.80 of the time per seed" in page
    assert "A batch takes 50 us from memory, 80 us from compact data of half the size, and 250 us from a memory" in page


def test_a_busy_machine_is_named_on_the_page(folder: Path) -> None:
    assert "Other programs used the machine" not in make_page(folder)
    path = folder / "bench-act.json"
    path.write_text(path.read_text().replace('"load_average": 0.1', '"load_average": 3.0'))
    assert "**Other programs used the machine while it measured act.**" in make_page(folder)


def test_sections_without_results_are_left_out(folder: Path) -> None:
    for kind in KINDS[1:]:
        (folder / f"bench-{kind}.json").unlink()
    page = make_page(folder)
    assert "## All algorithms" in page
    assert not any(title in page for title in ("## Acting", "## Online", "## Sampling", "## Scaling", "threads make"))


def test_numbers_have_three_digits() -> None:
    assert [number(value) for value in (0.0512, 1.234, 45.67, 123.4, 12345.6)] == [
        "0.0512",
        "1.23",
        "45.7",
        "123",
        "12,346",
    ]


def test_the_page_of_the_documentation_is_that_of_its_results() -> None:
    """`flowpolicies bench page` writes it."""
    assert (ROOT / "docs" / "performance.md").read_text() == make_page(ROOT / "docs" / "results")
