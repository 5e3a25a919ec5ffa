"""A new algorithm is its file and its doc page: everything else is found or generated.

One is added whose name sorts before all others, and one whose name sorts after them, in a copy of the package.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("aaa", "zzz")

FILE = '''"""{cls}: behaviour cloning under another name.

Nobody, "A paper that does not exist", https://arxiv.org/abs/0000.00000
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from flowpolicies.core import Network
from flowpolicies.losses import flow_matching_loss
from flowpolicies.samplers import Integrate, Sampler
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import PolicyConfig, velocity


@final
@dataclass(frozen=True, kw_only=True)
class {cls}Config(PolicyConfig):
    """Hyperparameters of {cls}."""

    flow_steps: int = 10
    """Number of Euler steps of the flow."""

    def networks(self, tau: float) -> dict[str, Network]:
        return {{"actor_flow": velocity(self)}}

    def sampler(self) -> Sampler:
        return Integrate(steps=self.flow_steps)


@final
class {cls}(OfflineAlgorithm):
    """{cls}, for a test."""

    Config = {cls}Config
    losses = (flow_matching_loss,)
'''

PAGE = """# {cls}: an algorithm for a test

**Metrics.** `flow_matching/loss`: the loss of flow matching.
"""

PROGRAM = """
from pathlib import Path
import flowpolicies
from flowpolicies.algorithms import ALGORITHMS, Aaa, AaaConfig, Zzz
from flowpolicies.cli import main

assert Path(flowpolicies.__file__).is_relative_to(Path.cwd()), flowpolicies.__file__
assert (flowpolicies.Aaa, flowpolicies.Zzz) == (Aaa, Zzz) and Aaa.Config is AaaConfig
print(*ALGORITHMS)
main(["list", "algorithms", "--markdown"])
main(["train", "aaa", "--help"])
"""
"""Run in the copy: prints the names, the table of all algorithms, and the help of one."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, its tests and its doc pages, with two more algorithms."""
    tree = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__", "golden")
    for folder in ("flowpolicies", "integrations", "tests", "tools", "docs/algorithms"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name in NAMES:
        (tree / f"flowpolicies/algorithms/{name}.py").write_text(FILE.format(cls=name.title()))
        (tree / f"docs/algorithms/{name}.md").write_text(PAGE.format(cls=name.title()))
    return tree


def run(tree: Path, *words: str) -> str:
    """Runs a program in the copy, and returns what it prints."""
    path = os.pathsep.join((str(tree), str(tree / "integrations")))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(tree: Path, *words: str) -> str:
    return run(tree, sys.executable, *words)


@pytest.mark.slow
def test_the_contract_tests_pass_for_algorithms_that_sort_first_and_last(tree) -> None:
    """Without compilation, which takes the most time and does not depend on a name."""
    chosen = "(aaa or zzz or registry_and_doc_pages) and not compiled"
    tests = "tests/algorithms/test_contracts.py"
    out = python(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", tests, "-k", chosen)
    assert " passed" in out
    assert "skipped" not in out


def test_their_imports_keep_the_contracts(tree) -> None:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    assert "0 broken" in python(tree, "-c", program, "--no-cache")


def test_they_are_found_by_name_in_order_and_by_the_command_line(tree) -> None:
    names, _, table = python(tree, "-c", PROGRAM).partition("\n")
    found = names.split()
    assert (found[0], found[-1]) == NAMES
    linked = [line.partition("(")[2].partition(".md)")[0] for line in table.splitlines() if line.startswith("| [")]
    pages = {page.stem for page in (tree / "docs/algorithms").glob("*.md")} - {"index"}
    assert sorted(linked) == sorted(pages)
    assert "flowpolicies train aaa" in table
    assert "--flow-steps" in table
