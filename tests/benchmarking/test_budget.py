"""Measurements that end in time."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from flowpolicies.benchmarking.timing import OutOfTime, TimeBudget, attempt, limited


def test_the_clock_counts_down_to_a_share_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    budget = TimeBudget(50)
    now[0] = 130.0
    assert (budget.used, budget.left(), budget.left(0.4)) == (30, 20, -10)


def test_a_block_is_given_up_when_its_time_is_used_and_the_alarm_is_as_before() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(OutOfTime), limited(0.02):
        time.sleep(60)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_work_that_is_done_in_time_is_not_disturbed_afterwards() -> None:
    cell: dict[str, Any] = {}
    assert attempt(lambda cell: cell.update(ms=1), cell, seconds=60, least=1)
    assert cell == {"ms": 1}
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_too_little_time_an_error_and_an_end_before_it_is_done_are_recorded() -> None:
    cells: list[dict[str, Any]] = [{}, {}, {}]

    def fail(cell: dict[str, Any]) -> None:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 20 GiB")

    def last(cell: dict[str, Any]) -> None:
        cell["updates"] = 3
        try:
            time.sleep(10)
        except Exception:  # As a compiler catches whatever goes wrong in it.
            cell["caught"] = True

    assert not attempt(fail, cells[0], seconds=2, least=3)
    assert attempt(fail, cells[1], seconds=60, least=3)
    assert attempt(last, cells[2], seconds=0.05, least=0)
    assert cells == [
        {"left out": "2.0 s were left, and it begins with 3 s or more"},
        {"error": "RuntimeError: CUDA out of memory."},
        {"updates": 3, "left out": "it was not done after 0.1 s"},
    ]
