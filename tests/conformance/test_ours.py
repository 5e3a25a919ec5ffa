"""Classes of this package keep the promises of Stable-Baselines3, or refuse them on purpose.

Three classes stand for the rest: with critics, with chunks by episodes (in `make more`), and without critics.
`make conformance` checks all of them, and writes the tables of docs/guides/sb3.md.
"""

from __future__ import annotations

from typing import Any

import pytest

from flowpolicies import BC, FQL, RQL
from flowpolicies.conformance import check


@pytest.mark.slow
@pytest.mark.parametrize("cls", [BC, FQL, pytest.param(RQL, marks=pytest.mark.more)], ids=lambda cls: cls.__name__)
def test_promises_are_kept_or_refused_on_purpose(cls: Any) -> None:
    report = check(cls, policy_kwargs={"net_arch": [8, 8]})
    report.raise_for_failures()
    assert report.stale == [], "these exceptions are declared, but the promises are kept"
