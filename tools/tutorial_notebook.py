"""docs/tutorial.ipynb from docs/tutorial.md: one source, so that they cannot differ. `make generate` writes it."""

from __future__ import annotations

import json
import re
from typing import Any

BLOCK = re.compile(r"^```python\n(.*?)^```\n?", re.MULTILINE | re.DOTALL)


def notebook(page: str) -> str:
    """The notebook of a page: its blocks of Python are cells of code, the text between them cells of Markdown.

    Links to other pages are left as text, and pictures are left out, because a notebook is read without the site.
    """
    parts = BLOCK.split(re.sub(r"\A---\n.*?\n---\n", "", page, flags=re.DOTALL))
    cells = [_cell(number, part.strip(), is_code=number % 2 == 1) for number, part in enumerate(parts) if part.strip()]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cell(number: int, text: str, is_code: bool) -> dict[str, Any]:
    if not is_code:
        text = re.sub(r"^!\[[^\]]*\]\([^)]*\)\n\n.*?(?:\n\n|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
        text = re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)
        text = text.replace(" This page is also a notebook.", "").strip()
    cell = {"cell_type": "code" if is_code else "markdown", "id": f"cell-{number}", "metadata": {}}
    outputs: dict[str, Any] = {"execution_count": None, "outputs": []} if is_code else {}
    return {**cell, **outputs, "source": text.splitlines(keepends=True)}
