"""Damaged and hostile files of every kind are refused as users expect; `make faults` reads twenty thousand."""

from __future__ import annotations

import re

import pytest
from campaigns import run_module

pytestmark = pytest.mark.faults


def test_damaged_and_hostile_files_are_refused() -> None:
    ended = run_module("fuzz", "--cases", "600", "--jobs", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "600 cases, 0 not as they should be" in ended.stdout
    for kind in ("policy", "model", "npz", "hdf5", "memmap", "run", "checkpoint", "minari", "address"):
        (cases,) = re.findall(rf"^{kind} +(\d+)", ended.stdout, re.MULTILINE)
        assert int(cases) >= 50
