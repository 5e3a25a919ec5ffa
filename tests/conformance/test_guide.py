"""The tables of docs/guides/sb3.md."""

from __future__ import annotations

import re
from typing import Any

import sb3_guide
from sb3_guide import Found

from flowpolicies.conformance import PROMISES
from flowpolicies.conformance.report import one_line


def results(**changes: Found) -> dict[str, Found]:
    return {name: changes.get(name, Found("passed", "")) for name in PROMISES}


RESULTS = {
    "stock SAC": results(),
    "stock TD3": results(state_dependent_exploration_is_accepted=Found("not applicable", "No argument.")),
    "fql": results(hindsight_works=Found("refused", "ValueError: pass goals= to FQL; it has a, b")),
    "bc": results(
        hindsight_works=Found("refused", "ValueError: pass goals= to BC; it has c"),
        learn_takes_a_float=Found("failed", "TypeError: no (If this is refused on purpose, declare it.)"),
    ),
}


def row(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_counts_are_shown_by_class() -> None:
    text = sb3_guide.tables(RESULTS)
    count = len(PROMISES)
    assert row(text, "| stock SAC") == f"| stock SAC | {count} | 0 | 0 | 0 |"
    assert row(text, "| `bc`") == f"| `bc` | {count - 2} | 1 | 0 | 1 |"


def test_differences_are_grouped_by_reason() -> None:
    text = sb3_guide.tables(RESULTS)
    assert row(text, "| `hindsight_works`") == (
        "| `hindsight_works` | refused | ValueError: pass goals= to the class | all |"
    )
    assert row(text, "| `learn_takes_a_float`") == "| `learn_takes_a_float` | failed | TypeError: no | bc |"


def test_every_promise_has_a_row() -> None:
    lines = sb3_guide.tables(RESULTS).splitlines()
    for name, promise in PROMISES.items():
        [line] = [line for line in lines if line.startswith(f"| {one_line(promise.text)} | `{name}` |")]
        kind = {"hindsight_works": "0 of 2; 2 refused", "learn_takes_a_float": "1 of 2; 1 failed"}.get(name, "all")
        assert line.endswith(f" {kind} |")
    found = [line for line in lines if "state_dependent_exploration_is_accepted" in line]
    assert found[0].endswith("| 1 of 2; 1 not applicable | all |")


def test_checks_that_were_not_run_are_shown() -> None:
    partial: Any = {"stock SAC": {}, "fql": {}}
    assert sb3_guide.tables(partial).count("| not run | not run |") == len(PROMISES)


def test_the_page_lists_every_promise() -> None:
    """Run `python tools/sb3_guide.py` if this fails."""
    generated = sb3_guide.PAGE.read_text().partition(sb3_guide.BEGIN)[2].partition("## Every promise")[2]
    listed = dict(re.findall(r"^\| (.+?) \| `([a-z_0-9]+(?:\[\w+\])?)` \|", generated, re.MULTILINE)[::-1])
    names = set(re.findall(r"^\| .+? \| `([a-z_0-9]+(?:\[\w+\])?)` \|", generated, re.MULTILINE))
    assert names == set(PROMISES)
    assert listed.keys() == {one_line(promise.text) for promise in PROMISES.values()}
