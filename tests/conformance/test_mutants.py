"""Each fault of a class is found by the checks that are named after the promise that it breaks."""

from __future__ import annotations

from pathlib import Path

import pytest
import saving_mutants  # noqa: F401  # It enters its mutants.
from mutants import MUTANTS

from flowpolicies.conformance import check


@pytest.mark.parametrize("name", MUTANTS)
def test_faults_are_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # Some faults are files with odd names.
    make, names = MUTANTS[name]
    report = check(make(), names, policy_kwargs={"net_arch": [8]})
    found = {row.promise.function for row in report.failures} | {row.promise.name for row in report.failures}
    missed = [check for check in names if check not in found]
    assert not missed, f"{missed} did not find it: {report.to_markdown()}"
