"""The examples in the documentation: blocks of Python and commands, page by page, and how tests run them.

A block or command that tests cannot run has a comment before it that says why: `<!-- not run: it takes an hour -->`.
"""

from __future__ import annotations

import ast
import builtins
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"(?P<why><!-- not run: (?P<reason>.*?) -->\s*\n)?^(?P<indent> *)```(?P<language>python|sh|pycon)[^\n]*\n"
    r"(?P<text>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)


class Example(NamedTuple):
    """A block of code of a page."""

    page: str
    """Path of the page from the root of the repository."""
    line: int
    """Number of its first line in the page."""
    language: str
    """Language of the block: python, or sh for commands."""
    text: str
    """What it contains."""
    reason: str | None
    """Why tests do not run it; None: they do."""

    def commands(self) -> Iterator[list[str]]:
        """The words of each `flowpolicies` command of a block of commands, without the program's name."""
        for line in self.text.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                if part.strip().startswith("flowpolicies "):
                    yield shlex.split(part, comments=True)[1:]


def pages() -> list[Path]:
    """Every page of the documentation, the README and CONTRIBUTING.md."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples(page: Path) -> list[Example]:
    """The blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        indent = match["indent"]
        lines = [line.removeprefix(indent) for line in match["text"].splitlines(keepends=True)]
        line = text.count("\n", 0, match.start("text")) + 1
        name = page.relative_to(ROOT).as_posix()
        found.append(Example(name, line, match["language"], "".join(lines), match["reason"]))
    return found


def undefined(texts: list[str]) -> list[str]:
    """Names that code reads and nothing in it defines."""
    read, defined = set(), set(dir(builtins)) | {"__name__", "__file__"}
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Name):
                (read if isinstance(node.ctx, ast.Load) else defined).add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.alias):
                defined.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.arg):
                defined.add(node.arg)
    return sorted(read - defined)
