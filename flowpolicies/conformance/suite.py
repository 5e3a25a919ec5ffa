"""The tests that `pytest -p flowpolicies.conformance --sb3-class MODULE:CLASS` collects: one per promise."""

from __future__ import annotations

from typing import Any

from flowpolicies.conformance.promises import Promise


def test_promise(promise: Promise, keeps_promise: Any) -> None:
    keeps_promise(promise)
