"""The algorithms by name, and their hyperparameters as the command line needs them, without importing torch.

The Config of an algorithm is in one file with its losses, and torch and Stable-Baselines3 take seconds to import. So
`catalog.json` repeats what help, presets and error messages need: descriptions, and names, types, defaults and meanings
of fields. It is generated from the classes (`make generate`), and a test compares the two. Algorithms of other packages
are imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import field, make_dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_type_hints

from flowpolicies.plugins import Registry
from flowpolicies.shell import fields
from flowpolicies.shell.fields import Bounds

AlgorithmFamily = Literal["flow", "guided", "diffusion", "gaussian", "online", "cloning", "other"]
FAMILIES: dict[AlgorithmFamily, str] = {
    "flow": "Flows that Q trains",
    "guided": "Flows that Q guides when acting",
    "diffusion": "Diffusions and consistency models",
    "gaussian": "Gaussian policies",
    "online": "Online, with or without data",
    "cloning": "Behaviour cloning",
    "other": "Others",
}
"""Families of algorithms and their titles, in the order in which the documentation lists them."""


class Described(NamedTuple):
    """An algorithm of this package, described."""

    name: str
    """Name in the registry and on the command line."""
    home: str
    """Its class, as "module:Class"."""
    doc: str
    """Docstring of the class."""
    config: Mapping[str, Any]
    """Its Config: `name`, `doc`, `renamed`, `uses_rho_with_min`, and `fields` as (name, type, default, meaning)."""
    family: AlgorithmFamily = "other"
    """The family to which it belongs."""


@cache
def _read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("flowpolicies.shell") / "catalog.json").read_text(encoding="utf-8"))
    return found


@cache
def catalog() -> dict[str, Described]:
    """The algorithms of this package by name."""
    return {entry["name"]: Described(**entry) for entry in _read()["algorithms"]}


REGISTRY: Registry[Any] = Registry(
    "algorithm",
    "flowpolicies.algorithms",
    "an algorithm of that name, a subclass of OfflineAlgorithm",
    lambda name, cls: REGISTRY.declared.get(name) is cls,  # Declaring the class has entered it.
    built_in={name: entry.home for name, entry in catalog().items()},
)
"""Finds algorithms by name, also those of packages that were not imported yet."""


class DescribedConfig:
    """Abstract base of the described Configs: the same fields, types, defaults and checks, and nothing else."""

    hints: ClassVar[Mapping[str, Any]]
    """Name of a field -> its type."""
    uses_rho_with_min: ClassVar[bool]
    """Whether a loss uses rho although q_agg="min"."""
    renamed: ClassVar[Mapping[str, str]]
    """Old names of fields and their present names."""

    def __post_init__(self) -> None:
        fields.check_config(self, self.hints)


@cache
def described_config(name: str) -> type[Any]:
    """A dataclass like the Config of an algorithm of this package, whose meanings are annotations for tyro."""
    from tyro.conf import arg

    config = catalog()[name].config
    written = type("", (), {"__annotations__": {key: text for key, text, *_ in config["fields"]}})
    names = {"Literal": Literal, "EncoderName": ENCODER_NAME}
    types = get_type_hints(written, {**vars(fields), **names}, include_extras=True)
    rows = []
    for key, _, default, meaning in config["fields"]:
        default = tuple(default) if isinstance(default, list) else default
        rows.append((key, Annotated[types[key], arg(help=meaning)], field(default=default)))
    namespace = {"__doc__": config["doc"], "hints": types}
    namespace |= {key: config[key] for key in ("renamed", "uses_rho_with_min")}
    return make_dataclass(
        config["name"], rows, bases=(DescribedConfig,), namespace=namespace, frozen=True, kw_only=True
    )


def config_of(name: str) -> type[Any]:
    """The described Config of an algorithm, or the Config itself of one that another package provides."""
    return described_config(name) if name in catalog() else REGISTRY.find(name).Config


def name_of(name: str) -> str:
    """The name of an algorithm in the registry, whatever its case.

    Raises:
        ValueError: for an unknown name, with the nearest one, and as `get_algorithm` for one of another package.
        ImportError: if the package that provides it cannot be imported.
    """
    return name.lower() if name.lower() in catalog() else str(REGISTRY.find(name.lower()).name)


def _is_encoder(name: Any) -> bool:
    """Whether there is such an encoder. Those that were registered in this process are known if torch is imported."""
    networks: Any = sys.modules.get("flowpolicies.networks")
    built_in = dict.fromkeys(_read()["encoders"], "flowpolicies.networks:encoders")
    known = Registry[Any]("encoder", "flowpolicies.encoders", "", lambda *_: True, built_in=built_in)
    (known if networks is None else networks.ENCODERS).check_known(name)
    return True


ENCODER_NAME = Annotated[str, Bounds("be the name of an encoder", _is_encoder)]
"""As `EncoderName` of `flowpolicies.shell.config`."""
