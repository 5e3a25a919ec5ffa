"""The examples in docstrings run, in tiny sizes, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("algorithms", "data", "policies", "samplers", "training", "core", "networks")
"""Packages whose public names may have examples."""
LEAST = 30
"""Number of examples that there are at least: fewer are found only if finding them is broken."""
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def found() -> Iterator[doctest.DocTest]:
    """The examples of each public name that has some."""
    finder, seen = doctest.DocTestFinder(recurse=True), set()
    for package in PACKAGES:
        module = importlib.import_module(f"flowpolicies.{package}")
        for name in dir(module):
            thing = getattr(module, name, None)
            if not (inspect.isclass(thing) or inspect.isfunction(thing)) or thing in seen:
                continue
            if thing.__module__.startswith("flowpolicies."):
                seen.add(thing)
                yield from (test for test in finder.find(thing, f"{package}.{name}", globs={}) if test.examples)


EXAMPLES = list(found())


def test_examples_were_found() -> None:
    assert len(EXAMPLES) >= LEAST


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example_runs(example: doctest.DocTest, place: Path) -> None:
    report: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(example, out=report.append)
    assert report == []
