"""pytest plugin: one test per promise of Stable-Baselines3, or Stable-Baselines3's own tests with another class.

    pytest -p flowpolicies.conformance --sb3-class my_package:MyAlgo --sb3-arg "policy_kwargs=dict(net_arch=[8])"
    pytest -p flowpolicies.conformance --sb3-class my_package:MyAlgo --sb3-tests ~/stable-baselines3/tests

Importing the module needs pytest, which is therefore imported nowhere else in the package.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, cast

import pytest

from flowpolicies.conformance.importing import arguments_of, load_object
from flowpolicies.conformance.promises import Promise
from flowpolicies.conformance.running import chosen, run
from flowpolicies.conformance.stand_in import put_in_place

_SUITE = Path(__file__).with_name("suite.py")
_USER_GAVE_PATHS = "ARGS"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("Stable-Baselines3 conformance")
    group.addoption(
        "--sb3-class",
        metavar="MODULE:CLASS",
        help="Check whether this off-policy algorithm keeps the promises of Stable-Baselines3.",
    )
    group.addoption(
        "--sb3-arg",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="Constructor argument of every model, such as actor_hidden_dims=(8,8); may be given several times.",
    )
    group.addoption(
        "--sb3-tests",
        metavar="DIR",
        help="Folder of Stable-Baselines3's own tests; they are run instead, with the class in the place of another.",
    )
    group.addoption(
        "--sb3-replaces",
        metavar="NAME",
        default="SAC",
        help="Name of the class of stable_baselines3 that the class replaces in those tests (default: SAC).",
    )
    group.addoption(
        "--sb3-translate",
        metavar="MODULE:FUNCTION",
        help="Function that turns a dict of that class's constructor arguments into a dict of this class's arguments.",
    )


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("sb3_class")
    if name is None:
        return
    tests = config.getoption("sb3_tests")
    if tests is None:
        if config.args_source.name != _USER_GAVE_PATHS:
            config.args = [str(_SUITE)]
        return
    translate = config.getoption("sb3_translate")
    function = None if translate is None else load_object(translate)
    put_in_place(
        load_object(name), config.getoption("sb3_replaces"), arguments_of(config.getoption("sb3_arg")), function
    )
    config.args = [tests]
    config.option.continue_on_collection_errors = True  # Some need packages such as ale_py, and none needs all of them.


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.path != _SUITE:
        return
    name = metafunc.config.getoption("sb3_class")
    if name is None:
        raise pytest.UsageError("pass --sb3-class MODULE:CLASS")
    promises = chosen(load_object(name))
    metafunc.parametrize("promise", promises, ids=[promise.name for promise in promises])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of Stable-Baselines3's own tests, keeps those that use the replaced class."""
    if config.getoption("sb3_class") is None or config.getoption("sb3_tests") is None:
        return
    replaced = config.getoption("sb3_replaces")
    kept = [item for item in items if _uses(item, replaced)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _uses(item: pytest.Item, name: str) -> bool:
    """Whether a test names a class in its parameters or in its body."""
    parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
    if any(getattr(value, "__name__", None) == name for value in parameters):
        return True
    if any(inspect.isclass(value) for value in parameters):  # The test is of the class that is its parameter.
        return False
    return name in inspect.unwrap(cast(pytest.Function, item).function).__code__.co_names


@pytest.fixture
def sb3_class(request: pytest.FixtureRequest) -> Any:
    """The class of `--sb3-class`."""
    return load_object(request.config.getoption("sb3_class"))


@pytest.fixture
def sb3_arguments(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The constructor arguments of `--sb3-arg`."""
    return arguments_of(request.config.getoption("sb3_arg"))


@pytest.fixture
def keeps_promise(sb3_class: Any, sb3_arguments: dict[str, Any]) -> Any:
    """A function that runs a check; it skips or fails the test unless the check passes."""

    def examine(promise: Promise) -> None:
        verdict = run(promise, sb3_class, sb3_arguments)
        if verdict.result == "failed":
            pytest.fail(f"{promise.text}\n{verdict.message}", pytrace=False)
        elif verdict.result != "passed":
            pytest.skip(f"{verdict.result}: {verdict.message}")

    return examine
