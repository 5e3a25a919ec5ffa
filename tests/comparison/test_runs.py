from __future__ import annotations

from pathlib import Path

from flowpolicies.comparison.runs import short_names


def test_short_names_have_as_many_parts_as_it_takes() -> None:
    names = ["/a/seed0/fql", "/a/seed1/fql", "/a/seed1/bc", "runs/x.jsonl", "fql"]
    assert list(short_names(map(Path, names)).values()) == ["seed0/fql", "seed1/fql", "bc", "x.jsonl", "fql"]
    assert short_names([Path("x/fql"), Path("fql")]) == {Path("x/fql"): "x/fql", Path("fql"): "fql"}
