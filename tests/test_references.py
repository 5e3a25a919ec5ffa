"""No text of the project refers to notes that its readers do not have."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[1]
NOTES = re.compile(
    r"\b(flow|rql|rql_diffusion)[ _]family\b|\bfrontier\.md|(?<!\])\(qflow\.md|\bspecs?/|\bNOTES-\d|\bdesign/\w+\.md",
    re.IGNORECASE,
)
"""File names, or words for them, of working notes that are not part of the repository."""


def test_no_text_refers_to_notes_outside_of_the_project() -> None:
    listed = subprocess.run(("git", "ls-files"), cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    files = [PROJECT / name for name in listed.splitlines() if name.endswith((".py", ".md", ".toml", ".yml", ".ipynb"))]
    assert len(files) > 300
    found = [
        f"{file.relative_to(PROJECT)}:{number}: {line.strip()}"
        for file in files
        if file != Path(__file__) and file.is_file()
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if NOTES.search(line)
    ]
    assert not found, "cite the paper or the public repository instead:\n" + "\n".join(found)
