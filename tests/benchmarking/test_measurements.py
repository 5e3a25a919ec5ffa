"""Measurements at tiny sizes: what they measure and what their results hold, not how long it takes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.benchmarking import jax_peers, machine, replay, scaling, step
from flowpolicies.benchmarking.flops import gflop_of_update, period_of
from flowpolicies.benchmarking.step import main_phase
from flowpolicies.benchmarking.workloads import COMPARED, TARGETS, Workload, make_model


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small rows, and no search for the fastest product."""
    rows = {"fql-small": Workload(algorithm="fql", width=8, depth=1, batch_size=4, rows=100)}
    monkeypatch.setattr(step, "COMPARED", rows)
    monkeypatch.setattr(step, "gemm_peak", lambda **_: {"1x1x1": {"torch": 1.0, "update": 2.0}})


@pytest.fixture
def all_cores() -> Iterator[None]:
    """Gives the process its cores and threads back."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    yield
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


def test_products_of_an_update_are_counted() -> None:
    # BC: a batch of 4 rows through 2 layers of 8 units; forward, gradient of weights, and of inputs beyond the first.
    layers = [(3 + 1 + 1, 8), (8, 8), (8, 1)]
    products = sum(2 * 4 * rows * columns for rows, columns in layers)
    expected = 3 * products - 2 * 4 * layers[0][0] * layers[0][1]
    workload = Workload(algorithm="bc", width=8, depth=2, batch_size=4, observation_dim=3, action_dim=1, rows=50)
    assert gflop_of_update(make_model(workload)) * 1e9 == pytest.approx(expected)


@pytest.mark.parametrize(("name", "period"), [("fql", 1), ("rebrac", 2), ("bdpo", 5)])
def test_delayed_updates_are_measured_over_their_period(name: str, period: int) -> None:
    model = make_model(replace(main_phase(name), width=8, depth=1, rows=200, batch_size=8))
    assert period_of(model) == period
    done = model._n_updates
    gflop_of_update(model)
    assert (model._n_updates - done) % period == 0


def test_every_row_has_a_target_and_fits_the_page() -> None:
    assert COMPARED.keys() == TARGETS.keys()
    assert COMPARED["qam"].text == "4x512, batch 256, h = 5"
    assert {workload.algorithm for workload in COMPARED.values()} == {"fql", "qflow", "ifql", "rql", "qam"}


def test_step_measures_rows_and_other_algorithms(tiny: None, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "Workload", partial(Workload, width=8, batch_size=4, rows=90))
    found = step.measure_step(("fql-small", "bc"), columns=("eager",), seconds=0, say=said.append)["results"]
    assert list(found) == ["fql-small", "bc"]
    row = found["fql-small"]
    assert (row["algorithm"], row["size"]) == ("fql", "1x8, batch 4")
    assert 0 < row["eager"]["min_ms"] <= row["eager"]["median_ms"]
    share = row["gflop"] / row["eager"]["min_ms"] * 1e3 / 2.0
    assert row["eager"]["share_of_peak"] == pytest.approx(share, abs=1e-3)
    assert sum(row["shares"].values()) == pytest.approx(1, abs=0.01)
    assert "products" in row["shares"]
    assert "shares" not in found["bc"]
    assert said[-1].startswith("bc ")


def test_all_stands_for_the_rows_and_every_algorithm() -> None:
    names = [name for name, _, _ in step.rows_of(("all",), ("eager", "jax"))]
    assert set(names) == {*COMPARED, *ALGORITHMS}
    assert {name: columns for name, _, columns in step.rows_of(("bc", "fql"), ("eager", "jax"))} == {
        "bc": ["eager"],
        "fql": ("eager", "jax"),
    }


def test_step_without_the_repository_says_how_jax_is_measured(
    tiny: None, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jax_peers, "FOLDER", tmp_path)
    found = step.measure_step(("fql-small",), columns=("eager", "jax"), seconds=0, say=said.append)
    assert "jax" not in found["results"]["fql-small"]
    assert "without the column jax: the updates in JAX are part of the repository" in said[0]
    assert "pip install -e '.[bench]'" in said[0]


@pytest.mark.parametrize("wrong", ["eagre", ""])
def test_an_unknown_column_is_refused_with_those_that_there_are(wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"unknown columns ['{wrong}']; there are: eager, compiled")):
        step.measure_step(columns=(wrong,))


def test_replay_measures_every_kind_of_data(said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "CALLS", 2)
    found = replay.measure_replay(transitions=300, rounds=1, folder=tmp_path, say=said.append)
    names = " ".join(found["results"])
    for kind in (
        "Stable-Baselines3",
        "memory, h = 20",
        "compact, h = 5",
        "memory map, h = 20",
        "by position",
        "RQL, 100 episodes",
    ):
        assert kind in names
    assert all(0 < row["min_us"] <= row["median_us"] for row in found["results"].values())
    assert len(said) == len(found["results"])
    assert list(tmp_path.iterdir()) == []


def test_scaling_varies_one_size_at_a_time(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        scaling, "AXES", {"batch_size": (2, 4), "flow_steps": (1, 2), "rows": (50, 100), "threads": (1,)}
    )
    found = scaling.measure_scaling("qflow", axes=tuple(scaling.AXES), width=8, depth=1, seconds=0, say=said.append)
    assert {axis: list(cells) for axis, cells in found["results"].items()} == {
        "batch_size": ["2", "4"],
        "flow_steps": ["1", "2"],
        "rows": ["50", "100"],
        "threads": ["1"],
    }
    assert len(said) == 4


def test_an_axis_that_the_algorithm_lacks_is_left_out() -> None:
    found = scaling.measure_scaling("bc", axes=("ensemble",), width=8, depth=1, seconds=0, say=lambda _: None)
    assert found["results"] == {"ensemble": {}}


def test_cores_beyond_those_of_the_process_are_refused(all_cores: None) -> None:
    with pytest.raises(ValueError, match="1000 threads were asked for, and this process may use 1 to"):
        machine.use_cores(1000)


def test_a_busy_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (5.0, 0, 0))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.warns(UserWarning, match="its load was 5.0 in the last minute, and it has 2 cores"):
        machine.warn_if_busy(1)
    monkeypatch.setattr("os.getloadavg", lambda: (0.3, 0, 0))
    machine.warn_if_busy(2)


@pytest.mark.more
def test_kernel_of_an_update_is_found_by_running_one() -> None:
    assert re.fullmatch(r"oneDNN \S+|MKL|torch without MKL", machine.matmul_kernel())
