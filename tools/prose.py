"""Which field docstrings and help texts cannot be read alone.

A field docstring is read in `--help` and in editors, far from the lines around it. It must therefore begin with a
capital letter, must not begin with a preposition, and must have at least four words. `tests/test_prose.py` applies the
rule to every field and every command-line flag; `tools/architecture.py` counts the fields that break it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

PREPOSITIONS = frozenset(
    """
    about above across after against along among around as at before behind below beside besides between
    beyond by despite down during except for from in inside into like near of off on onto out outside over
    past per since than through throughout till to toward towards under until up upon via with within
    without
    """.split()  # noqa: SIM905
)
MIN_WORDS = 4


class Text(NamedTuple):
    """The docstring of a field, and where it is."""

    path: Path
    line: int
    owner: str
    field: str
    text: str


def complaint(text: str) -> str | None:
    """Why a text cannot be read alone, or None if it can."""
    words = text.split()
    if len(words) < MIN_WORDS:
        return f"has fewer than {MIN_WORDS} words"
    if words[0].strip(",.;:").lower() in PREPOSITIONS:
        return "begins with a preposition"
    if not (words[0][0].isupper() or words[0][0].isdigit()):
        return "does not begin with a capital letter or a number"
    return None


def field_docstrings(path: Path) -> Iterator[Text]:
    """The string literals that follow the annotated assignments in the classes of a file."""
    for owner in ast.walk(ast.parse(path.read_text())):
        if not isinstance(owner, ast.ClassDef):
            continue
        for field, after in pairwise(owner.body):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                text = after.value.value if isinstance(after.value, ast.Constant) else None
                if isinstance(text, str):
                    yield Text(path, after.lineno, owner.name, ast.unparse(field.target), text)


def unreadable_fields(root: Path) -> list[tuple[Text, str]]:
    """The field docstrings of flowpolicies and its integrations that cannot be read alone, with the reason."""
    files = sorted(path for folder in ("flowpolicies", "integrations") for path in (root / folder).rglob("*.py"))
    found = [(text, complaint(text.text)) for path in files for text in field_docstrings(path)]
    return [(text, reason) for text, reason in found if reason is not None]
