"""The described Configs, which the command line parses, are like the Configs themselves."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from typing import Any

import pytest
import tyro

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.networks import ENCODERS
from flowpolicies.shell.catalog import REGISTRY, catalog, config_of, described_config, name_of
from flowpolicies.shell.config import EncoderName
from flowpolicies.shell.fields import hints_of

BUILT_IN = [name for name, cls in ALGORITHMS.items() if cls.__module__.startswith("flowpolicies.")]


@pytest.mark.parametrize("name", BUILT_IN)
def test_fields_have_the_same_types_and_defaults(name: str) -> None:
    config, described = ALGORITHMS[name].Config, described_config(name)
    hints = {key: hint for key, hint in hints_of(config).items() if key in described.hints}
    encoders = {key for key, hint in hints.items() if hint == EncoderName}
    assert encoders == {"encoder"}
    assert {key: hint for key, hint in described.hints.items() if key not in encoders} == {
        key: hint for key, hint in hints.items() if key not in encoders
    }
    assert vars(described()) == vars(config())
    assert [field.name for field in dataclasses.fields(described)] == [one.name for one in dataclasses.fields(config)]
    assert (described.__doc__, described.renamed) == (config.__doc__, config.renamed)


def answer(config: type[Any], words: list[str]) -> str:
    """What tyro prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), pytest.raises(SystemExit):
        tyro.cli(config, args=words, prog="flowpolicies")
    return out.getvalue()


@pytest.mark.parametrize("name", ["bdpo", "qflow", "sac"])
def test_help_is_that_of_the_config(name: str) -> None:
    assert answer(described_config(name), ["--help"]) == answer(ALGORITHMS[name].Config, ["--help"])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("fql", {"alpha": float("nan")}),
        ("fql", {"alpha": "1"}),
        ("fql", {"flow_steps": 0}),
        ("fql", {"actor_hidden_dims": (8, 0)}),
        ("fql", {"encoder": "impalla"}),
        ("fql", {"q_agg": "median"}),
        ("fql", {"q_agg": "min", "rho": 0.5}),
        ("fql", {"execute": 3, "horizon": 2}),
        ("iql", {"expectile": 1.0}),
        ("fql", {"alfa": 1.0}),
    ],
)
def test_wrong_values_raise_the_same_error(name: str, values: dict[str, Any]) -> None:
    errors = []
    for config in (described_config(name), ALGORITHMS[name].Config):
        with pytest.raises((TypeError, ValueError)) as error:
            config(**values)
        errors.append((type(error.value), str(error.value)))
    assert errors[0] == errors[1]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sac", {"q_agg": "min", "rho": 0.5}),
        ("fql", {"horizon": 4, "execute": 2, "actor_hidden_dims": [8, 8]}),
        ("fql", {"encoder": "impala_debug"}),
    ],
)
def test_right_values_are_taken(name: str, values: dict[str, Any]) -> None:
    assert vars(described_config(name)(**values)) == vars(ALGORITHMS[name].Config(**values))


def test_encoders_that_are_registered_in_this_process_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown encoder 'mine'"):
        described_config("bc")(encoder="mine")
    monkeypatch.setitem(ENCODERS.declared, "mine", lambda shape: None)
    assert described_config("bc")(encoder="mine").encoder == "mine"


def test_names() -> None:
    assert list(catalog()) == BUILT_IN
    assert name_of("QFlow") == "qflow"
    with pytest.raises(ValueError, match=r"unknown algorithm 'qflo' .* Did you mean 'qflow'"):
        name_of("qflo")
    assert {name: REGISTRY.home(name) for name in BUILT_IN} == {
        name: (ALGORITHMS[name].__module__, ALGORITHMS[name].__qualname__) for name in BUILT_IN
    }


def test_an_algorithm_of_another_package_has_its_own_config(monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy:
        Config = object

    monkeypatch.setitem(REGISTRY.declared, "toy", Toy)
    assert config_of("toy") is object
    assert config_of("bc") is described_config("bc")
