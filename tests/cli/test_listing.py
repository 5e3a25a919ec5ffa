from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.cli.listing import Facts, composition
from flowpolicies.samplers import BestOfN, Edit, Integrate, RobustGuided


def rows(out: str) -> dict[str, list[str]]:
    """Name of each algorithm -> words of its line in the table of algorithms."""
    lines = out.partition("algorithms:\n")[2].partition("\ndatasets:")[0].splitlines()
    return {line.split()[0]: line.split() for line in lines}


def test_everything_is_listed(call: Any) -> None:
    answer = call("list")
    assert (answer.code, answer.err) == (0, "")
    assert set(ALGORITHMS) <= set(rows(answer.out))
    for topic in ("algorithms", "datasets", "environments", "generators", "samplers", "networks"):
        assert f"{topic}:\n" in answer.out


def test_the_table_of_algorithms(call: Any) -> None:
    found = rows(call("list", "algorithms").out)
    assert found["name"] == ["name", "paper", "class", "sampler", "offline", "online", "pixels", "parity"]
    support = ["yes"] * 3
    assert found["ifql"] == [
        "ifql",
        "2304.10573",
        "IFQL",
        "BestOfN(Integrate)",
        *support,
        str(len(ALGORITHMS["ifql"].parity)),
    ]
    assert found["qfql"] == ["qfql", "openreview", "QFQL", "Guided", *support, "-"]
    assert found["fedit"][3] == "Edit(Integrate)"
    assert {name: words[2] for name, words in found.items() if name in ALGORITHMS} == {
        name: cls.__name__ for name, cls in ALGORITHMS.items()
    }


def test_the_table_is_plain_where_nobody_looks(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = call("list", "algorithms").out
    assert plain.isascii()
    assert "\x1b" not in plain
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= 120
    assert len(plain.splitlines()) == len(ALGORITHMS) + 2
    monkeypatch.setenv("COLUMNS", "60")
    assert call("list", "algorithms").out == plain


@pytest.mark.parametrize("columns", [60, 100, 120])
def test_the_table_in_a_terminal(columns: int, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = rows(call("list", "algorithms").out)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    seen = re.sub(r"\x1b\[[\d;]*m", "", call("list", "algorithms").out)
    assert max(map(len, seen.splitlines())) <= max(columns, 100)
    shown = rows(seen)
    assert all(shown[name] == words for name, words in plain.items() if name in ALGORITHMS)


def test_the_page_is_of_algorithms_only(call: Any) -> None:
    answer = call("list", "--markdown")
    assert answer.code == 2
    assert "flowpolicies list algorithms --markdown" in answer.err


def test_what_a_sampler_is_made_of() -> None:
    assert composition(Integrate()) == "Integrate"
    assert composition(BestOfN(Edit(Integrate("actor_slow")), n=4)) == "BestOfN(Edit(Integrate))"
    assert composition(RobustGuided()) == "RobustGuided"  # Its monitor is no sampler.


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("https://arxiv.org/abs/2502.02538", "2502.02538"),
        ("https://example.org/paper.pdf", "example.org/paper.pdf"),
        (None, "-"),
    ],
)
def test_how_a_paper_is_shown(link: str | None, shown: str) -> None:
    assert Facts("a", "A.", link, "A", "Integrate", ()).paper == shown


def test_the_paper_is_the_first_link() -> None:
    assert Facts.of(ALGORITHMS["dsrl"]).link == "https://arxiv.org/abs/2506.15799"  # A full stop follows it there.
    assert Facts.of(ALGORITHMS["fedit"]).link == "https://arxiv.org/abs/2507.07986"  # And another link.
    assert Facts.of(ALGORITHMS["qfql"]).link == "https://openreview.net/forum?id=MFY9i3uR7S"


@pytest.mark.parametrize(
    ("topic", "line"),
    [
        ("datasets", "  npz       flowpolicies"),
        ("environments", "  ogbench   flowpolicies"),
        ("samplers", "  OneStep"),
        ("networks", "  VelocityField"),
    ],
)
def test_one_topic_is_listed_alone(call: Any, topic: str, line: str) -> None:
    answer = call("list", topic)
    assert answer.code == 0
    assert answer.out.startswith(f"{topic}:\n")
    assert line in answer.out
    assert "algorithms:" not in answer.out
