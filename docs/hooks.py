"""MkDocs hooks: expand `FOLDER/*.md` in the navigation, so that a new page needs no line there, and show mermaid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Replaces each pattern of `nav` by its pages, in the order of their names; a page's title is its heading."""
    config.nav = expand(config.nav, Path(config.docs_dir))
    return config


def expand(nav: Any, docs: Path) -> Any:
    """The navigation, with the pages that each `FOLDER/*.md` matches in its place, less those that it names itself."""
    if isinstance(nav, dict):
        return {title: expand(entry, docs) for title, entry in nav.items()}
    if not isinstance(nav, list):
        return nav
    entries = [value for entry in nav for value in (entry.values() if isinstance(entry, dict) else [entry])]
    expanded: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and "*" in entry:
            pages = [path.relative_to(docs).as_posix() for path in sorted(docs.glob(entry))]
            expanded.extend(page for page in pages if page not in entries)
        else:
            expanded.append(expand(entry, docs))
    return expanded


def on_page_content(html: str, **_: Any) -> str:
    """Gives diagrams the element that mermaid's script looks for; GitHub needs no script."""
    block = re.compile(r'<pre><code class="language-mermaid">(.*?)</code></pre>', re.DOTALL)
    return block.sub(r'<pre class="mermaid">\1</pre>', html)
