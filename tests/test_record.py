from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

import flowpolicies
from flowpolicies.record import describe_hardware, describe_software, source_commit


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_is_that_of_a_checkout_which_has_the_file(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    assert source_commit(package) is None
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "first")
    assert source_commit(package) is None  # Below a repository, but no part of it.
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "second")
    commit = source_commit(package)
    assert commit is not None
    assert len(commit) == 40
    (package / "__init__.py").write_text("changed")
    assert source_commit(package) == f"{commit}-dirty"


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source_commit(tmp_path) is None


def test_the_record_does_not_name_the_machine() -> None:
    record = {**describe_software(), **describe_hardware()}
    assert platform.node() not in [str(value) for value in record.values()]
    assert record["flowpolicies"] == flowpolicies.__version__
