"""Runs that are killed and continued equal undisturbed ones; `make faults` kills a hundred."""

from __future__ import annotations

import re

import pytest
from campaigns import run_module

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("phase", ["offline", "online"])
def test_killed_runs_end_like_undisturbed_ones(phase: str) -> None:
    numbers = {"offline": 0, "online": 0, phase: 3}
    ended = run_module("kills", *(word for name, n in numbers.items() for word in (f"--{name}", str(n))), "--most", "2")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"every run is bit-identical to the undisturbed one", ended.stdout)
