from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import sys
from html.parser import HTMLParser

import pytest

from flowpolicies.pages import render
from flowpolicies.pages.blocks import (
    ChartBlock,
    CodeBlock,
    KeyBlock,
    MediaBlock,
    NoticeBlock,
    PageCell,
    Section,
    TableBlock,
    TextBlock,
)
from flowpolicies.pages.render import plain, render_page
from flowpolicies.pages.vega import vega_script

HOSTILE = "\"><img src=x onerror=alert(1)><script>alert(1)</script>'"


class Parsed(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def hostile_section(title: str = HOSTILE) -> Section:
    blocks = [
        TableBlock(HOSTILE, (HOSTILE,), [[PageCell(HOSTILE, HOSTILE)], [PageCell("b", 2.0, 0.5, "bad")]]),
        KeyBlock({HOSTILE: "red"}),
        TextBlock(HOSTILE),
        NoticeBlock("bad", HOSTILE, [HOSTILE]),
        CodeBlock(HOSTILE, HOSTILE),
        MediaBlock(HOSTILE, "data:image/gif;base64,", False),
    ]
    return Section(title=title, sentence=HOSTILE, blocks=blocks)


def test_every_text_is_escaped() -> None:
    page = render_page(HOSTILE, HOSTILE, [hostile_section(), hostile_section("Other")])
    parsed = Parsed(page)
    assert parsed.tags.count("img") == 2  # The two media.
    assert parsed.tags.count("script") == 1
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert sum(HOSTILE in text for text in parsed.texts) >= 20


def test_only_the_scripts_of_the_page_may_run_and_nothing_is_loaded() -> None:
    page = render_page("a", "b", [hostile_section()])
    policy = next(value for value in (value for _, value in Parsed(page).attributes) if value and "script-src" in value)
    scripts = re.findall(r"<script>(.+?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert policy.startswith("default-src 'none';")
    assert policy.partition("script-src ")[2] == " ".join(f"'sha256-{digest}'" for digest in digests)
    assert len(scripts) == 1
    links = [value for name, value in Parsed(page).attributes if name in ("src", "href")]
    assert links == ["data:image/gif;base64,"]


def test_data_of_charts_cannot_end_their_script_and_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "vega_script", lambda: "")
    spec = {"data": {"values": [{"label": HOSTILE, "y": math.nan, "z": (1, math.inf)}]}}
    page = render_page("a", "b", [Section(title="c", sentence="d", blocks=[ChartBlock("e", spec)])])
    (text,) = re.findall(r'<script type="application/json" id="charts">(.+?)</script>', page)
    assert json.loads(text)["chart-1"]["data"]["values"] == [{"label": HOSTILE, "y": None, "z": [1, None]}]
    assert 'id="chart-1"' in page


def test_pages_without_charts_need_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.setattr(render, "vega_script", vega_script.__wrapped__)  # Without its cache.
    assert "<h1>a</h1>" in render_page("a", "b", [Section(title="c", sentence="d")])
    chart = Section(title="c", sentence="d", blocks=[ChartBlock("e", {})])
    with pytest.raises(ImportError, match=r"pip install 'flowpolicies\[report\]'"):
        render_page("a", "b", [chart])


def test_plain_data() -> None:
    assert plain({1: [math.inf, 2 / 3, "a", None]}) == {"1": [None, 0.666667, "a", None]}
