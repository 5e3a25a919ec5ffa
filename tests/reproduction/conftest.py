"""A replacement of the command line for child processes."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package `flowpolicies` in the working directory that executes its first argument as Python code."""
    package = tmp_path / "flowpolicies"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys\nexec(sys.argv[1])\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
