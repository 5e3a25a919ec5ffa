"""Pages as text: one HTML file without any address outside of it."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flowpolicies.pages.blocks import ChartBlock, Section
from flowpolicies.pages.vega import vega_script
from flowpolicies.version import __version__

TEMPLATES = Path(__file__).parent / "templates"
"""Folder of the template, its style and its scripts."""


def render_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """A page, in which every text is escaped.

    Only the scripts of this package may run in it, whatever is written in it, and it loads nothing: its
    Content-Security-Policy names the hashes of the scripts, and no address.

    Args:
        title: title of the page.
        lead: sentence below the title.
        sections: parts of the page.

    Raises:
        ImportError: if there are charts, and the package that draws them is not installed.
    """
    charts: dict[str, Any] = {}
    for block in (block for section in sections for block in section.blocks if isinstance(block, ChartBlock)):
        charts[f"chart-{len(charts) + 1}"] = plain(block.spec)
    names = iter(charts)
    scripts = [_asset("page.js"), *([vega_script(), _asset("charts.js")] if charts else [])]
    page: str = (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            lead=lead,
            sections=sections,
            charts=charts,
            next_chart=lambda: next(names),
            style=Markup(_asset("page.css")),
            scripts=list(map(Markup, scripts)),
            policy=_policy(scripts),
            version=__version__,
        )
    )
    return page


def plain(value: Any) -> Any:
    """The value as JSON data, with six digits of numbers; None for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


@cache
def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """The Content-Security-Policy. Styles are allowed, because charts set them."""
    hashes = " ".join(f"'sha256-{digest}'" for digest in _digests(scripts))
    return f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src {hashes}"


def _digests(scripts: Sequence[str]) -> Iterator[str]:
    for script in scripts:
        yield base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
