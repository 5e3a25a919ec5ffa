"""MkDocs hooks: the navigation from patterns and families, reference of algorithms, equations and diagrams.

A line of the navigation such as `guides/own-*.md` stands for the pages that it matches, so a new page needs no line
there. Pages of algorithms are grouped by the families of flowpolicies/shell/catalog.json, which is generated from the
classes.
"""

from __future__ import annotations

import json
import logging
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

LOG = logging.getLogger("mkdocs.hooks.flowpolicies")
CATALOG = Path(__file__).parents[1] / "flowpolicies" / "shell" / "catalog.json"
VENDOR = "assets/vendor"
"""Folder of the scripts of others, which the site brings so that it needs no network."""

FROM_ELSEWHERE = re.compile(
    r'<(?:script|img|iframe|source)[^>]* src="(https?:[^"]*)"|<link[^>]* rel="stylesheet"[^>]* href="(https?:[^"]*)"'
)
"""What a page would load from another server."""

FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
COMMANDS = re.compile(r'<div class="language-sh highlight">.*?</div>|<code>[^<]*</code>', re.DOTALL)
"""An option of a command, which browsers would break after its hyphens, and where options are."""


def on_config(config: Any) -> Any:
    """Replaces the patterns of `nav` by pages; a page's title is its heading."""
    config.nav = expand(config.nav, Path(config.docs_dir))
    return config


def expand(nav: Any, docs: Path) -> Any:
    """The navigation with pages in the place of patterns.

    A pattern stands for the pages that it matches, in the order of their names, less those that a line names and those
    of earlier patterns. Groups without pages are left out.
    """
    named = set(_lines(nav))
    pages = [path.relative_to(docs).as_posix() for path in sorted(docs.rglob("*.md"))]
    free = [page for page in pages if page not in named]
    return _expand(nav, free)


def _lines(nav: Any) -> list[str]:
    """All pages and patterns of a navigation."""
    if isinstance(nav, str):
        return [nav]
    return [line for entry in (nav.values() if isinstance(nav, dict) else nav) for line in _lines(entry)]


def _expand(nav: Any, free: list[str]) -> Any:
    """As `expand`; pages that a pattern matches are taken out of `free`."""
    if isinstance(nav, dict):
        entries = {title: _expand(entry, free) for title, entry in nav.items()}
        return {title: entry for title, entry in entries.items() if entry}
    if isinstance(nav, str):
        return nav
    expanded: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and "*" in entry:
            found = [page for page in free if fnmatchcase(page, entry)]
            free[:] = [page for page in free if page not in found]
            expanded.extend(by_family(found) if entry == "algorithms/*.md" else found)
        elif inner := _expand(entry, free):
            expanded.append(inner)
    return expanded


def catalog() -> dict[str, Any]:
    """The families, and what is known about each algorithm."""
    found: dict[str, Any] = json.loads(CATALOG.read_text(encoding="utf-8"))
    return found


def by_family(pages: list[str]) -> list[dict[str, list[str]] | str]:
    """Pages of algorithms as {title of the family: pages}, in the order of the families; others stay as they are."""
    families, algorithms = catalog()["families"], catalog()["algorithms"]
    groups: dict[str, list[str]] = {title: [] for title in families.values()}
    for entry in algorithms:
        page = f"algorithms/{entry['name']}.md"
        if page in pages:
            groups[families[entry["family"]]].append(page)
    grouped = {page for group in groups.values() for page in group}
    found = [{title: group} for title, group in groups.items() if group]
    return [*found, *(page for page in pages if page not in grouped)]


REFERENCE = """

## Class and hyperparameters

::: {module}.{cls}
    options: {{ heading_level: 3, members: false }}

::: {module}.{config}
    options:
      heading_level: 3
      inherited_members: true
      members: [{fields}]
"""


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Adds the reference of the class and of all its hyperparameters to the page of an algorithm."""
    folder, _, name = page.file.src_uri.removesuffix(".md").rpartition("/")
    for entry in catalog()["algorithms"] if folder == "algorithms" else ():
        if entry["name"] == name:
            module, cls = entry["home"].split(":")
            fields = ", ".join(field[0] for field in entry["config"]["fields"])
            return markdown + REFERENCE.format(module=module, cls=cls, config=entry["config"]["name"], fields=fields)
    return markdown


def on_page_content(html: str, **_: Any) -> str:
    """Marks options of commands, which the style sheet keeps on one line."""
    return COMMANDS.sub(lambda code: FLAG.sub(r'<span class="flag">\g<0></span>', code[0]), html)


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Adds KaTeX to pages with equations, and mermaid to pages with diagrams."""
    to_root = "../" * page.url.count("/")
    tags = []
    if 'class="arithmatex"' in output:
        tags.append(f'<link rel="stylesheet" href="{to_root}{VENDOR}/katex/katex.min.css">')
        tags += [_script(to_root + path) for path in (f"{VENDOR}/katex/katex.min.js", "assets/equations.js")]
    if 'class="mermaid"' in output:  # The theme draws the diagrams, and would take mermaid from a server.
        tags.append(_script(f"{to_root}{VENDOR}/mermaid/mermaid.tiny.js"))
    output = output.replace("</head>", "\n".join([*tags, "</head>"]), 1)
    for address in map("".join, FROM_ELSEWHERE.findall(output)):
        LOG.warning("%s loads %s: the site must work without a network", page.file.src_uri, address)
    return output


def _script(address: str) -> str:
    return f'<script src="{address}" defer></script>'
