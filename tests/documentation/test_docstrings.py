"""Every public class has an example in its docstring, and all examples run, in tiny sizes, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from doc_pages import ROOT

from flowpolicies.shell.config import PolicyConfig

PACKAGES = (
    "algorithms",
    "data",
    "policies",
    "samplers",
    "training",
    "core",
    "networks",
    "flows",
    "losses",
    "diagnostics",
    "inspection",
    "conformance",
    "importing",
    "plugins",
    "reproduction",
)
"""Packages whose public names may have examples; those of the pages of docs/reference come on top."""
NO_EXAMPLE = {
    "DataFault": "is an error",
    "EvaluationRow": "is what read_evaluations returns",
    "Finding": "is a part of an Inspection, which has one",
    "Histogram": "is a part of an Inspection, which has one",
    "Imported": "is what import_flax makes of a checkpoint, which only the authors' code writes",
    "Learner": "is made by models, which have one",
    "NotApplicable": "is an error",
    "Noised": "is what Diffusion.noised returns",
    "Promise": "is a part of a Report, which has one",
    "Reading": "is a part of a Diagnosis, which has one",
    "Resimulated": "is a part of an Inspection, which has one",
    "Scored": "is what a loss returns",
    "Verdict": "is a part of a Report, which has one",
}
"""Public classes without an example, and why. A Config needs none either: its algorithm's example sets its fields."""
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public() -> Iterator[tuple[str, Any]]:
    """The public classes and functions of this package, each once, with names such as samplers.Guided."""
    modules = {package: importlib.import_module(f"flowpolicies.{package}") for package in PACKAGES}
    names = [(package, name) for package, module in modules.items() for name in dir(module)]
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        for path in re.findall(r"^::: flowpolicies\.([\w.]+\.\w+)$", page.read_text(), re.MULTILINE):
            package, _, name = path.rpartition(".")
            names.append((package, name))
    seen = set()
    for package, name in names:
        thing = getattr(importlib.import_module(f"flowpolicies.{package}"), name, None)
        is_ours = getattr(thing, "__module__", "").startswith("flowpolicies.") and not name.startswith("_")
        if is_ours and (inspect.isclass(thing) or inspect.isfunction(thing)) and thing not in seen:
            seen.add(thing)
            yield f"{package}.{name}", thing


PUBLIC = dict(public())
FINDER = doctest.DocTestFinder(recurse=True)
EXAMPLES = [test for name, thing in PUBLIC.items() for test in FINDER.find(thing, name, globs={}) if test.examples]
CLASSES = {name: thing for name, thing in PUBLIC.items() if inspect.isclass(thing)}


def has_example(cls: type) -> bool:
    """Whether the docstring of a class itself has one: those of its methods do not count."""
    return ">>> " in (vars(cls).get("__doc__") or "")


def test_every_public_class_has_an_example() -> None:
    assert len(CLASSES) > 100
    without = [
        name
        for name, cls in CLASSES.items()
        if not (has_example(cls) or cls.__name__ in NO_EXAMPLE or issubclass(cls, PolicyConfig))
    ]
    assert without == [], "give them an example with >>> in the docstring of the class"


def test_exceptions_are_needed() -> None:
    public = {cls.__name__ for cls in CLASSES.values() if not has_example(cls)}
    assert NO_EXAMPLE.keys() - public == set()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
@pytest.mark.usefixtures("shared_place")
def test_example_runs(example: doctest.DocTest) -> None:
    report: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(example, out=report.append)
    assert report == []
