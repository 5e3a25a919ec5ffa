"""Packages whose names are imported when they are used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import pendulum_data, tiny

import flowpolicies
from flowpolicies import FQL
from flowpolicies.lazy import LazyPackage

ROOT = Path(flowpolicies.__file__).parent
LAZY = sorted(
    ".".join(("flowpolicies", *path.parent.relative_to(ROOT).parts))
    for path in ROOT.rglob("__init__.pyi")
    if path.parent.name != "algorithms"
)


SCRIPT = """
import sys
from flowpolicies.shell.algorithm import ALGORITHMS, OfflineAlgorithm
from flowpolicies.shell.config import PolicyConfig
assert not ALGORITHMS
try:
    type("FQL", (OfflineAlgorithm,), {"Config": PolicyConfig, "losses": ()})
except TypeError as error:
    print(error)

from pathlib import Path
from flowpolicies.training import load_policy
print(load_policy(Path(sys.argv[1])).horizon)

import flowpolicies.training.collect, flowpolicies.training.train
from flowpolicies.training import collect, train
print(callable(collect), callable(train))
print(flowpolicies.data.sources.__name__)
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a process prints that has imported nothing of this package before."""
    path = tmp_path_factory.mktemp("fresh") / "model.zip"
    tiny(FQL, dataset=pendulum_data()).save(path)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_packages_that_the_command_line_imports_are_lazy() -> None:
    assert {f"flowpolicies.{name}" for name in ("data", "policies", "reproduction", "training")} <= set(LAZY)


@pytest.mark.parametrize("name", LAZY)
def test_every_name_of_the_stub_is_there(name: str) -> None:
    package = importlib.import_module(name)
    assert isinstance(package, LazyPackage)
    stub = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text())
    names = [one.asname for node in stub.body if isinstance(node, ast.ImportFrom) for one in node.names]
    for exported in filter(None, names):
        assert getattr(package, exported) is not None
        assert exported in dir(package)
        assert exported in package.__all__ or exported.startswith("_")


def test_all_algorithms_are_names_of_the_package() -> None:
    assert flowpolicies.FQL is FQL is importlib.import_module("flowpolicies.algorithms").FQL
    assert {"FQL", "FQLConfig", "ALGORITHMS", "make", "load_dataset", "evaluate"} <= set(flowpolicies.__all__)
    assert {"FQL", "load_dataset"} <= set(dir(flowpolicies))


def test_other_names_raise_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'flowpolicies' has no attribute 'QFlw'"):
        flowpolicies.QFlw  # noqa: B018
    with pytest.raises(ImportError, match=r"cannot import name 'load_datset' from 'flowpolicies.data'"):
        from flowpolicies.data import load_datset  # noqa: F401
    with pytest.raises(AttributeError, match=r"module 'flowpolicies.algorithms' has no attribute 'QFlw'"):
        importlib.import_module("flowpolicies.algorithms").QFlw  # noqa: B018
    assert not hasattr(flowpolicies, "__wrapped__")


def test_old_names_warn_about_the_line_that_uses_them() -> None:
    training = importlib.import_module("flowpolicies.training")
    with pytest.warns(DeprecationWarning, match=r"training\.Knobs is now .*SB3Hyperparameters") as warned:
        assert training.Knobs is training.SB3Hyperparameters
    assert warned[0].filename == __file__


def test_names_of_built_in_algorithms_are_taken_before_they_are_imported(fresh: list[str]) -> None:
    assert "which is the name of flowpolicies.algorithms.fql.FQL. Declare another one" in fresh[0]


def test_a_model_is_read_in_a_process_that_has_imported_no_algorithm(fresh: list[str]) -> None:
    assert fresh[1] == "1"


def test_a_function_is_not_hidden_by_the_module_of_its_name(fresh: list[str]) -> None:
    assert fresh[2] == "True True"


def test_modules_are_attributes_of_their_package(fresh: list[str]) -> None:
    assert fresh[3] == "flowpolicies.data.sources"
