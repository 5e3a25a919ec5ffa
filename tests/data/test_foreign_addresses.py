"""Addresses and switches decide what is trusted, so they are read strictly, soon, and alike for every source."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data import load_dataset, make_env, open_writer, register_source
from flowpolicies.data.addresses import split_options
from flowpolicies.data.foreign import environment_fault
from flowpolicies.data.formats.sb3 import load_sb3
from flowpolicies.data.sources import SOURCES
from flowpolicies.data.switches import as_switch, check_switches

WRONG = ["False", "no", "off", "0.0", "0", "none", "1", "yes", "True", "TRUE", "1.0", "[]", "null", '"none"', ""]


@pytest.mark.parametrize("value", WRONG)
def test_only_true_trusts(tmp_path: Path, value: str) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path).encode() + b"/ran'\ntR.")
    for address in (f"sb3:{path},trust={value}", f"sb3:{path},trust={value},storage=memmap"):
        with pytest.raises(ValueError, match=r"trust is .*, and must be true or false"):
            load_dataset(address)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", ["False", "no", 0.0, 1, None, [], "true"])
def test_functions_of_python_are_as_strict(tmp_path: Path, value: Any) -> None:
    (tmp_path / "x.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"trust is .*, and must be true or false"):
        load_sb3(tmp_path / "x.pkl", trust=value)


@pytest.mark.parametrize("text", ["", ",trust=false"])
def test_without_trust_a_pickle_is_an_artifact_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.pkl").write_bytes(b"")
    with pytest.raises(ArtifactError, match="it is a pickle"):
        load_dataset(f"sb3:{tmp_path}/x.pkl{text}")


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options that the functions of a source of another package received."""
    for registry in SOURCES.values():
        monkeypatch.setattr(registry, "declared", dict(registry.declared))
    received: list[dict[str, Any]] = []

    def load(name: str, *, fast: bool = False, maybe: bool | None = None, **options: Any) -> Any:
        received.append({"fast": fast, "maybe": maybe, **options})

    def writer(name: str, *, overwrite: bool = False, env: Any = None, fast: bool = False) -> Any:
        received.append({"fast": fast})

    register_source("plug", load=load, make_env=load, generate=load, open_writer=writer)
    return received


@pytest.mark.parametrize("option", ["fast=no", "maybe=0", "trust=yes", "verify=1"])
def test_switches_of_plugins_are_as_strict(plugin: list[dict[str, Any]], option: str) -> None:
    for call in (load_dataset, make_env):
        with pytest.raises(ValueError, match=r"(fast|maybe|trust|verify) is .*, and must be true or false"):
            call(f"plug:x,{option}")
    with pytest.raises(ValueError, match="fast is 'no', and must be true or false"):
        open_writer("plug:x", fast="no")
    assert plugin == []
    with pytest.raises(TypeError, match="must give a TransitionDataset"):
        load_dataset("plug:x,fast=true,maybe=null,trust=true")
    assert plugin == [{"fast": True, "maybe": None, "trust": True}]


def test_switches_of_gymnasium_are_as_strict() -> None:
    with pytest.raises(ValueError, match="disable_env_checker is 'no', and must be true or false"):
        make_env("Pendulum-v1,disable_env_checker=no")
    make_env("Pendulum-v1,disable_env_checker=true").close()


def test_numbers_are_no_switches() -> None:
    def function(*, count: int = 1, flag: bool = True, name: str = "true") -> None: ...

    check_switches(function, {"count": 1, "name": "no", "flag": False})
    assert as_switch("flag", False) is False


@pytest.mark.parametrize(
    "address",
    [
        "npz:x" + ',a="b"' * 5000 + ",A",
        "npz:x" + ',a="b"' * 600 + ",A",
        "npz:x" + ",a=b" * 1000 + ",A",
        "npz:x" + ",a=1" * 1000,
        "memmap:" + "x" * 4000,
        "sb3:" + "x" * 300,
        "npz:x,a=" + "[" * 100_000,
        "npz:x,a=" + '"' * 10_000,
        "npz:" + "," * 10_000,
        "x" * 100_000,
        ":",
        "",
        "\0:\0,a=\0",
    ],
    ids=range(13),
)
def test_long_addresses_are_split_or_refused_soon(address: str) -> None:
    start = time.monotonic()
    try:
        split_options(address)
        load_dataset(address)
    except (ValueError, FileNotFoundError):
        pass
    assert time.monotonic() - start < 2


def test_quotes_are_still_one_value() -> None:
    assert split_options('npz:x,a="b,c",d=2') == ("npz:x", {"a": "b,c", "d": 2})
    assert split_options('npz:x,a="b"c,d=2') == ("npz:x", {"a": '"b"c', "d": 2})


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("Pendulum-v1", None),
        ("Pendulum-v1,g=9.81", None),
        ("plug:x", None),
        ("Nowhere-v0", "is not registered in Gymnasium"),
        ("os:Pendulum-v1", "does not begin with a source of environments, but with 'os'"),
        ("plug:x,trust=true", "asks for trust itself"),
        ("plug:x,a=1,a=2", "is not an address"),
        (None, "is not text"),
        (["x"], "is not text"),
    ],
)
def test_environments_that_files_name(plugin: Any, address: Any, fault: str | None) -> None:
    found = environment_fault(address)
    assert found == fault or (fault and found and found.startswith(fault))
    assert "Pendulum-v1" in gymnasium.registry
