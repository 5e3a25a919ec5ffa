"""Damaged and hostile files of every kind are refused as users expect; `make faults` reads twenty thousand."""

from __future__ import annotations

import re

import pytest
from campaigns import run_module

pytestmark = pytest.mark.faults


def test_damaged_and_hostile_files_are_refused() -> None:
    ended = run_module("fuzz", "--cases", "605", "--jobs", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "605 cases, 0 not as they should be" in ended.stdout
    kinds = ("policy", "model", "npz", "hdf5", "memmap", "run", "checkpoint", "minari", "address", "pretrained", "flax")
    for kind in kinds:
        (cases,) = re.findall(rf"^{kind} +(\d+)", ended.stdout, re.MULTILINE)
        assert int(cases) >= 50
