"""Names of samplers, networks, encoders and sources: what may be registered, and what a policy file says of it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import tiny
from torch import nn

from flowpolicies import FQL, FlowPolicy, register_source
from flowpolicies.core import Network
from flowpolicies.data.sources import SOURCES
from flowpolicies.networks import ENCODERS, NETWORKS, ObservationEncoder, Part, register_encoder, register_network
from flowpolicies.plugins import Registry, package_of
from flowpolicies.policies.serialization import network_to_json, sampler_from_json, sampler_to_json
from flowpolicies.samplers import SAMPLERS, BestOfN, Integrate, register_sampler


@pytest.fixture(autouse=True)
def _undo() -> Iterator[None]:
    """Forgets what a test declares."""
    registries: list[Registry[Any]] = [SAMPLERS, NETWORKS, ENCODERS, *SOURCES.values()]
    before = [dict(registry.declared) for registry in registries]
    yield
    for registry, declared in zip(registries, before, strict=True):
        registry.declared.clear()
        registry.declared.update(declared)


@dataclass(frozen=True)
class Still:
    """Always the same action."""

    value: float = 0.5
    bounds: tuple[float, ...] = (-1.0, 1.0)
    names: dict[str, Any] = field(default_factory=dict)
    parts: tuple[Any, ...] = ()

    def __call__(self, nets, observations, noise):
        return torch.full((*observations.shape[:-1], 1), self.value)


class Linear(nn.Module):
    """A policy of one layer."""

    def __init__(self, observation_dim: int, action_dim: int, *, scales: tuple[float, ...] = (1.0,)) -> None:
        super().__init__()
        self.layer, self.scales = nn.Linear(observation_dim, action_dim), scales


class Features(nn.Module):
    """An encoder without parameters."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.out_dim = shape[0]

    def forward(self, images):
        return images.mean((-2, -1))


def package(folder: Path, name: str, entry_points: str, **modules: str) -> None:
    """An installed package with these entry points and modules."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


def policy(**options: Any) -> FlowPolicy:
    box = spaces.Box(-1, 1, (3,))
    return FlowPolicy(box, spaces.Box(-1, 1, (1,)), **{"networks": {"actor": Network(Linear)}, **options})


def test_a_class_is_registered_again_and_no_name_is_taken_over(tmp_path: Path, monkeypatch) -> None:
    for _ in range(2):
        assert register_sampler("still")(Still) is Still
    other = type("Still", (), {"__module__": "elsewhere", "__qualname__": "Still"})
    with pytest.raises(
        ValueError, match=r"^the sampler 'still' is already declared by .*test_registry\.Still\. Choose"
    ):
        register_sampler("still")(dataclass(other))
    with pytest.raises(
        ValueError, match=r"the sampler 'Integrate' is already declared by flowpolicies\.samplers\.flow"
    ):
        register_sampler("Integrate")(Still)
    with pytest.raises(ValueError, match="the encoder 'impala' is already declared by flowpolicies"):
        register_encoder("impala")(Features)
    with pytest.raises(ValueError, match="the dataset source 'ogbench' is provided by the package flowpolicies"):
        register_source("ogbench", make_env=lambda name: None, load=lambda name: None)
    assert "ogbench" not in SOURCES["environments"].declared, "nothing of it is registered"
    package(tmp_path, "calm-samplers", "[flowpolicies.samplers]\ncalm = calm:Calm\nIntegrate = calm:Calm\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="the sampler 'calm' is provided by the package calm-samplers"):
        register_sampler("calm")(Still)
    assert SAMPLERS.find("Integrate") is Integrate


def test_what_is_not_of_the_kind_is_refused() -> None:
    with pytest.raises(TypeError, match=r"the sampler 'x' must be a dataclass \(write @register_sampler above"):
        register_sampler("x")(Linear)
    with pytest.raises(TypeError, match=r"the network 'x' must be a subclass of torch\.nn\.Module, got .*Still"):
        register_network("x")(Still)
    with pytest.raises(TypeError, match=r"the dataset source 'x' must be a function load\(name, \*\*options\), got 3"):
        register_source("x", load=3)
    with pytest.raises(TypeError, match="the source 'x' needs at least one function: pass load="):
        register_source("x")
    with pytest.raises(ValueError, match="must begin with a letter and hold no spaces, got 'a:b'"):
        register_source("a:b", load=print)


def test_a_package_is_found_as_soon_as_it_is_installed_and_until_it_is_removed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert "calm" not in SAMPLERS
    package(tmp_path, "calm-samplers", "[flowpolicies.samplers]\ncalm = calm:Calm\n")
    assert SAMPLERS.names()["calm"] == "calm-samplers"
    shutil.rmtree(tmp_path / "calm_samplers-1.0.dist-info")
    assert "calm" not in SAMPLERS


def test_entry_points_that_do_not_work_are_reported_by_name(tmp_path: Path, monkeypatch) -> None:
    points = "[flowpolicies.samplers]\nbroken = no_such_module:X\nwrong = calm:Calm\ntwice = calm:Calm\n"
    package(tmp_path, "calm-samplers", points, calm="Calm = 3")
    package(tmp_path, "twin", "[flowpolicies.samplers]\ntwice = twin:Calm\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"sampler 'broken' cannot be imported from the package calm-samplers .*calm"):
        SAMPLERS.find("broken")
    with pytest.raises(ValueError, match=r"'wrong' of the package calm-samplers must lead to a dataclass .*Calm' is 3"):
        SAMPLERS.find("wrong")
    with pytest.raises(ValueError, match=r"'twice' is provided more than once, by calm-samplers, twin\. Uninstall all"):
        SAMPLERS.find("twice")
    with pytest.raises(ValueError, match=r"unknown sampler 'twise' \(known: BestOfN, .*\)\. Did you mean 'twice'\?"):
        SAMPLERS.find("twise")
    assert SAMPLERS.name_of(Still) is None, "broken packages disturb nobody"
    sys.modules.pop("calm")


def test_a_sampler_is_written_with_its_class_and_loaded_once_it_is_registered() -> None:
    sampler = Still(0.25, (-2.0, 2.0), {"a": [1, 2]}, (Integrate(steps=3), BestOfN(Still(), n=2)))
    entry = sampler_to_json(sampler)
    assert entry["type"] == f"{__name__}.Still"
    assert (entry["class"], entry["package"]) == (f"{__name__}:Still", None)
    message = (
        rf"needs the sampler '{__name__}\.Still', the class Still of the module {__name__}, which is not registered"
    )
    with pytest.raises(ValueError, match=message):
        sampler_from_json(entry)
    register_sampler("still")(Still)
    loaded = sampler_from_json(entry)
    assert loaded == Still(0.25, (-2.0, 2.0), {"a": (1, 2)}, sampler.parts)
    assert sampler_to_json(sampler)["type"] == "still"
    assert sampler_to_json(BestOfN(Integrate(), n=2))["inner"] == {
        "type": "Integrate",
        "field": "actor_flow",
        "steps": 10,
        "method": "euler",
    }
    entry["fields"]["other"] = 1
    with pytest.raises(ValueError, match=r"the sampler .* does not take the fields value, bounds, .* of the policy"):
        sampler_from_json(entry)


def test_a_sampler_of_another_package_than_the_file_s_is_refused(tmp_path: Path, monkeypatch) -> None:
    text = (
        "from dataclasses import dataclass\n@dataclass\nclass Calm:\n"
        "    def __call__(self, nets, observations, noise): ...\n"
    )
    package(tmp_path, "calm-samplers", "[flowpolicies.samplers]\ncalm = calm_one:Calm\n", calm_one=text)
    monkeypatch.syspath_prepend(tmp_path)
    entry = sampler_to_json(SAMPLERS.find("calm")())
    assert entry == {"type": "calm", "class": "calm_one:Calm", "package": "calm-samplers", "fields": {}}
    assert type(sampler_from_json(entry)) is SAMPLERS.find("calm")
    message = r"sampler 'calm' of the package other, but here the package calm-samplers provides .* Install other and"
    with pytest.raises(ValueError, match=message):
        sampler_from_json(entry | {"package": "other"})
    assert package_of(SAMPLERS.find("calm")) == "calm-samplers"
    assert package_of(Network) == "flowpolicies"
    assert package_of(nn.Linear) == "torch"


def test_what_is_not_plain_data_is_named() -> None:
    with pytest.raises(TypeError, match=r"the field 'value' of the sampler Still cannot be saved without pickle: arr"):
        sampler_to_json(Still(np.zeros(2)))
    with pytest.raises(TypeError, match="the option 'scales' of network 'actor' cannot be saved without pickle: <"):
        network_to_json("actor", Network(partial(Linear, scales=(print,))))
    for factory in (lambda o, a: Linear(o, a), partial(Linear, 3), print):
        with pytest.raises(TypeError, match="the factory of network 'actor' cannot be saved without pickle"):
            network_to_json("actor", Network(factory))


def test_a_policy_of_registered_parts_loads_as_it_was(tmp_path: Path) -> None:
    register_network("linear")(Linear)
    register_sampler("still")(Still)
    saved = policy(networks={"actor": Network(partial(Linear, scales=(1.0, 2.0)))}, sampler=Still(0.1))
    saved.save(tmp_path / "p")
    loaded = FlowPolicy.load(tmp_path / "p", device="cpu")
    assert loaded.sampler == saved.sampler
    assert loaded.networks["actor"].scales == (1.0, 2.0)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in saved.state_dict().items())
    NETWORKS.declared.pop("linear")
    with pytest.raises(
        ValueError, match=r"needs the network 'linear', the class Linear .* @register_network\(\"linear"
    ):
        FlowPolicy.load(tmp_path / "p")


def test_encoders_are_known_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"unknown encoder 'impal' \(known: .*impala_small.*\)\. Did you mean 'impala'"
    ):
        tiny(FQL, env="Pendulum-v1", encoder="impal")
    with pytest.raises(ValueError, match="unknown encoder '3'"):
        tiny(FQL, env="Pendulum-v1", encoder=3)
    register_encoder("features")(Features)
    image = spaces.Box(0, 255, (3, 8, 8), np.uint8)
    register_sampler("still")(Still)
    saved = FlowPolicy(image, spaces.Box(-1, 1, (1,)), networks={}, sampler=Still(), encoder="features")
    saved.save(tmp_path / "p")
    assert FlowPolicy.load(tmp_path / "p", device="cpu").encoder == "features"
    assert tiny(FQL, env="Pendulum-v1", encoder="features").cfg.encoder == "features"
    assert ObservationEncoder([Part((3, 8, 8), True), Part((2,), False)], "features").out_dim == 5
    register_encoder("without_size")(lambda shape: nn.Identity())
    with pytest.raises(TypeError, match=r"'without_size' must return a torch\.nn\.Module with an attribute out_dim"):
        ObservationEncoder([Part((3, 8, 8), True)], "without_size")
    ENCODERS.declared.pop("features")
    with pytest.raises(ValueError, match="the policy file needs the encoder 'features'"):
        FlowPolicy.load(tmp_path / "p")
